# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The style sheet of the page: light, dark, narrow and on paper."""

from __future__ import annotations

from typing import Final

_COLOURS: Final = {
    'light': {
        'paper': '#fbfaf8', 'card': '#ffffff', 'ink': '#1c1f24', 'soft': '#5a6170',
        'edge': '#dedbd4', 'grid': '#e9e6e0', 'mark': '#b3261e',
        'c0': '#2a62a8', 'c1': '#c2560c', 'c2': '#2d7d46', 'c3': '#8a45b0', 'c4': '#8f6b00',
        'c5': '#0d7a8c', 'c6': '#b8336a', 'c7': '#5b6b1f', 'c8': '#6b7280',
    },
    'dark': {
        'paper': '#14161a', 'card': '#1c1f25', 'ink': '#e8e6e1', 'soft': '#a3a9b5',
        'edge': '#333842', 'grid': '#2a2e36', 'mark': '#ff8a80',
        'c0': '#6ea8f5', 'c1': '#f59a5b', 'c2': '#69c387', 'c3': '#c79bea', 'c4': '#dcbc55',
        'c5': '#5cc6d6', 'c6': '#f08cb3', 'c7': '#b3c46a', 'c8': '#a0a7b4',
    },
}  # fmt: skip
"""Of text, surfaces and series. A series has a contrast of at least 3 with the card below it, text
one of at least 4.5 (WCAG 2.1, 1.4.11 and 1.4.3)."""


def variables(mode: str) -> str:
    """Return the colours of a mode, ``light`` or ``dark``, as CSS variables."""
    return ''.join(f'--{name}:{value};' for name, value in _COLOURS[mode].items())


def style_sheet() -> str:
    """Return the style sheet."""
    series = ''.join(f'.c{k}{{--series:var(--c{k})}}' for k in range(9))
    return (
        f':root{{color-scheme:light dark;{variables("light")}}}'
        f'@media screen and (prefers-color-scheme:dark){{:root{{{variables("dark")}}}}}'
        f'{series}{_RULES}'
    )


_RULES: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
body{overflow-wrap:anywhere}
td,th{overflow-wrap:break-word}
main,header,footer{max-width:78rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}
h1{font-size:1.7rem;line-height:1.25;margin:.1rem 0 1.2rem;font-weight:650}
h2{font-size:1.25rem;margin:0 0 .8rem;padding-top:1.2rem;border-top:2px solid var(--ink)}
h3{font-size:1rem;margin:1.4rem 0 .5rem}
section{margin-top:2.6rem}
.kicker{margin:0;color:var(--soft);letter-spacing:.04em}
.note,.remark,figcaption,.missing{color:var(--soft)}
.note,figcaption{font-size:.87rem;max-width:48rem}
.note{margin:.6rem 0}
.missing{border-left:3px solid var(--edge);padding:.3rem .8rem;margin:.5rem 0}
a{color:var(--c0)}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:1rem 0 0}
code,pre{font:.85rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem}
.tile,figure,.scroll{background:var(--card);border:1px solid var(--edge);border-radius:6px}
.tile{padding:.7rem .9rem}
.tile .name,.tile .remark{font-size:.82rem}
.tile .name{color:var(--soft)}
.tile .value{font-size:1.6rem;line-height:1.3;font-weight:600;font-variant-numeric:tabular-nums}
.tile .long{font-size:1.1rem}
pre{margin:1rem 0 0;padding:.7rem .9rem;white-space:pre-wrap;overflow-wrap:anywhere}
.scroll{overflow-x:auto;max-width:100%}
.scroll:focus-visible{outline:2px solid var(--c0)}
table{border-collapse:collapse;width:100%;font-size:.87rem}
th,td{padding:.35rem .55rem;text-align:left;vertical-align:top;border-top:1px solid var(--grid)}
td{min-width:3.5rem;max-width:24rem}
td:not(.number){min-width:9rem}
thead th{border-top:0;color:var(--soft);font-weight:600;white-space:nowrap}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td code{font-size:.82rem;overflow-wrap:anywhere}
.rest{color:var(--soft)}
.heat{display:block;margin:-.2rem -.5rem;padding:.2rem .5rem;border-radius:3px;
  background:color-mix(in srgb,var(--c0) calc(var(--share)*.5),transparent);
  -webkit-print-color-adjust:exact;print-color-adjust:exact}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,29rem),1fr));
  gap:1rem;margin:1rem 0;align-items:start}
.wide{grid-column:1/-1}
figure{margin:0;padding:.9rem;min-width:0}
figcaption{margin-top:.7rem}
.plot{display:block;overflow:visible;width:calc(100% - 4.2rem);height:14rem;
  margin:1.6rem .6rem 2.9rem 3.6rem}
.twice{margin-bottom:3.9rem}
.wide .plot{height:17rem}
.rows{width:calc(100% - 8.6rem);margin-left:8rem;margin-top:.4rem}
.plot text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}
.plot .end{text-anchor:end}
.plot .middle{text-anchor:middle}
.plot .strong{fill:var(--ink);font-weight:600;paint-order:stroke;stroke:var(--card);
  stroke-width:4px;stroke-linejoin:round}
.plot .within{fill:var(--card);font-weight:600}
.plot .grid{stroke:var(--grid)}
.plot .mark{stroke:var(--mark);stroke-width:1.5;stroke-dasharray:5 3}
.fill{fill:var(--series)}
.total{--series:var(--ink)}
.stroke{fill:none;stroke:var(--series);stroke-width:2;vector-effect:non-scaling-stroke;
  stroke-linejoin:round}
.thin{--series:var(--ink);stroke-width:1}
.whisker{stroke:var(--soft);stroke-width:1.5}
.median{stroke:var(--card);stroke-width:2}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;list-style:none;margin:0 0 .3rem;padding:0;
  font-size:.85rem}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em;
  background:var(--series);-webkit-print-color-adjust:exact;print-color-adjust:exact}
.swatch.line{background:var(--ink);height:2px;width:1.1em;vertical-align:middle}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,16rem),1fr));gap:1rem}
.gallery figure{padding:0;overflow:hidden}
.gallery figcaption,.gallery .missing{margin:.6rem .8rem}
.gallery img{display:block;width:100%;height:auto}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));
  gap:0 1.2rem;align-items:start}
.damage{margin:.3rem 0;padding-left:1.2rem}
footer{margin-top:3rem;padding-bottom:2rem;color:var(--soft);font-size:.85rem}
@media (max-width:30rem){main,header,footer{padding-left:.8rem;padding-right:.8rem}
  h1{font-size:1.35rem}.tiles{grid-template-columns:1fr 1fr}.tile .value{font-size:1.3rem}
  figure{padding:.7rem}.rows{width:calc(100% - 6.6rem);margin-left:6rem}}
@media print{:root{color-scheme:light}body{background:#fff;font-size:10pt}nav{display:none}
  .tile,figure,tr,h2,h3{break-inside:avoid}h2,h3{break-after:avoid}
  .scroll{overflow:visible}table{font-size:7.5pt}
  th,td,td:not(.number){padding:.15rem .3rem;min-width:0}
  thead th,.number{white-space:normal}
  .figures{grid-template-columns:1fr 1fr}.gallery{grid-template-columns:repeat(4,1fr)}}
"""
