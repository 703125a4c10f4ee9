# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``report.html`` of a run: one page that needs nothing else, made from the run's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segnode.errors import OutputError
from segnode.evaluation.report.accuracy import accuracy_section
from segnode.evaluation.report.gallery import Gallery, Pictures
from segnode.evaluation.report.head import bag_names, head
from segnode.evaluation.report.health import Health
from segnode.evaluation.report.instances import Instances, Steadiness
from segnode.evaluation.report.latency import Latency
from segnode.evaluation.report.markup import Html, element, join
from segnode.evaluation.report.pictures import overlays
from segnode.evaluation.report.run_files import read_answers, read_summary
from segnode.evaluation.report.settings import settings_section
from segnode.evaluation.report.style import style_sheet
from segnode.evaluation.report.timeline import Timeline
from segnode.output_files import is_replaceable, write_whole

NAME = 'report.html'
_BEGINNING = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="generator" content="segnode">'
)
# The page holds no script and loads nothing; a browser is told so, whatever a bag brings.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(
    folder: Path, report: Callable[[str], None], pictures: Pictures | None = None
) -> Path:
    """Write the page of a run.

    Args:
        folder: of the run, with ``summary.json``, ``frames.csv`` and ``results.json``.
        report: is told what the page lacks.
        pictures: gives the picture of a frame, None where there is none; without it they come
            from the output bag ``bag/`` of the run.

    Returns:
        the path of the page.

    Raises:
        ConfigError: a file of the run is missing or no such file.
        OutputError: another file lies there, or the page cannot be written.
    """
    path = folder / NAME
    if not is_replaceable(path, is_own_page):
        raise OutputError(f'{path}: expected no file of somebody else, found one; move it away')
    page = render(folder, report, pictures)
    write_whole(path, page.encode())
    return path


def is_own_page(path: Path) -> bool:
    """Return whether a file is a page that `write_report` wrote."""
    with path.open('rb') as file:
        return file.read(len(_BEGINNING)) == _BEGINNING.encode()


def render(folder: Path, report: Callable[[str], None], pictures: Pictures | None) -> Html:
    """Return the page as `write_report` writes it."""
    from tqdm import tqdm

    summary = read_summary(folder)
    timeline = Timeline(summary['frames'])
    health, latency = Health(summary, timeline), Latency(summary, timeline)
    instances, steadiness = Instances(summary, timeline), Steadiness()
    gallery = Gallery(summary['frames'])
    answers = read_answers(folder)
    for row, entries in tqdm(
        answers, total=summary['frames'], desc='report', unit='frame', disable=None, leave=False
    ):
        for part in (timeline, health, latency, instances, steadiness, gallery):
            part.add(row, entries)
    found = (
        {}
        if pictures
        else overlays(folder / 'bag', gallery.rows(), summary.get('outputs') or {}, report)
    )
    return _page(
        summary,
        head(summary),
        element(
            'main',
            health.html(),
            latency.html(),
            instances.html(),
            steadiness.html(),
            accuracy_section(summary),
            gallery.html(pictures or (lambda row: found.get(row.frame))),
            settings_section(summary),
        ),
    )


def _page(summary: dict[str, Any], *body: Html) -> Html:
    content = {'http-equiv': 'Content-Security-Policy', 'content': _POLICY}
    rules = [
        element('meta', **content),
        element('meta', name='viewport', content='width=device-width, initial-scale=1'),
        element('title', 'segnode: ', bag_names(summary)),
        element('style', Html(style_sheet())),
    ]
    foot = element(
        'footer',
        'Made by segnode evaluate from summary.json, frames.csv and results.json, which lie '
        'beside this page.',
    )
    inner = join((*rules, Html('</head>'), element('body', *body, foot)))
    return Html(f'{_BEGINNING}{inner}</html>\n')
