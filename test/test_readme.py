# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What README.md says, held against the code: commands, names, files and the planner in it."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2')

from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from ros_harness import ROOT, Peer, Process, wait_until
from sensor_msgs.msg import Image as ImageMessage
from vision_msgs.msg import Detection2DArray, LabelInfo

from segnode.__main__ import COMMANDS
from segnode.checkpoint.null import is_null
from segnode.checkpoint.presets import PRESETS
from segnode.checkpoint.torchscript import read_description
from segnode.cli import given_settings
from segnode.engine import Detections
from segnode.live.image_message import SUPPORTED_ENCODINGS
from segnode.ros import messages
from segnode.ros.outputs import Outputs
from segnode.ros.parameters import all_parameters

pytestmark = pytest.mark.ros

README = (ROOT / 'README.md').read_text(encoding='utf-8')


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf'^```{language}\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The text under a heading, up to the next heading of its depth or less."""
    found = re.search(
        rf'^(##+) {re.escape(title)}\n(.*?)(?=^#{{2}} |^\1 |\Z)',
        re.sub(r'^# .*\n', '', README),
        re.MULTILINE | re.DOTALL,
    )
    assert found, title
    return found[2]


def table(title: str) -> dict[str, list[str]]:
    """The rows of a section's first table by their first cell, without code marks."""
    rows = {}
    lines = iter(section(title).splitlines())
    for line in lines:
        if not line.startswith('|'):
            if rows:
                break
            continue
        name, *rest = (cell.strip() for cell in line.strip('|').split('|'))
        if name.startswith('`'):
            rows[name.strip('`')] = rest
    return rows


def shell_lines() -> list[list[str]]:
    """The words of every command line of the shell blocks."""
    text = '\n'.join(blocks('sh')).replace('\\\n', ' ')
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in lines if words]


def segnode_commands() -> list[list[str]]:
    """The arguments of every call of segnode, ``demo.train`` among them as a command."""
    found = []
    for words in shell_lines():
        if words[:3] == ['ros2', 'run', 'segnode']:
            found.append(words[3:])
        elif words[0].endswith('python') and words[1:2] == ['-m']:
            if words[2] == 'segnode':
                found.append(words[3:])
            elif words[2].startswith('segnode.'):
                found.append([words[2], *words[3:]])
    return found


class _ParsedError(Exception):
    """Carries what argparse made of the words."""


@pytest.mark.parametrize('words', segnode_commands(), ids=' '.join)
def test_command_lines_parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_after(parse: Any) -> Any:
        def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
            raise _ParsedError(parse(self, args, namespace))

        return stop

    command, *arguments = words
    if command == 'node':
        assert arguments[0] in ('--ros-args', '--sros2-policy')
        return
    for way in ('parse_args', 'parse_intermixed_args'):
        parse = getattr(argparse.ArgumentParser, way)
        monkeypatch.setattr(argparse.ArgumentParser, way, stop_after(parse))
    module = COMMANDS[command].module if command in COMMANDS else command
    with pytest.raises(_ParsedError) as parsed:
        importlib.import_module(module).main(arguments)
    (options,) = parsed.value.args
    settings = given_settings(options)
    # A path of a config, of a description, or of an exported folder.
    if 'model' in settings and not settings['model'].endswith(('.yaml', '/')):
        assert settings['model'] in PRESETS or is_null(settings['model'])


def test_every_command_has_an_example() -> None:
    assert set(table('Command line')) == set(COMMANDS)
    assert {words[0] for words in segnode_commands()} >= set(COMMANDS)


def test_ros_command_lines_name_what_there_is() -> None:
    known, changed, launched = all_parameters(), 0, 0
    for words in shell_lines():
        if words[:2] == ['ros2', 'launch']:
            assert words[2:4] == ['segnode', 'seg.launch.py']
            given = {word.partition(':=')[0] for word in words[4:]}
            assert given <= {*launch_arguments(), '--show-args'}
            launched += 1
        elif words[:2] == ['ros2', 'param']:
            assert words[3] == '/segnode'
            parameter = known[words[4]]
            if words[2] == 'set':
                assert parameter.runtime
                parameter.validate(yaml.safe_load(words[5]))
            changed += 1
    assert launched
    assert changed


def test_make_targets_exist() -> None:
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    lines = [[word for word in words if '=' not in word] for words in shell_lines()]
    targets = {words[1] for words in lines if words[:1] == ['make']}
    assert {'demo', 'gpu', 'setup', 'test'} == targets
    for target in targets:
        assert re.search(rf'^{target}:', makefile, re.MULTILINE)


def launch_arguments() -> dict[str, str]:
    """The launch file's arguments and the parameters that they set; empty for none."""
    text = (ROOT / 'launch' / 'seg.launch.py').read_text(encoding='utf-8')
    found = dict.fromkeys(re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", text), '')
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'PARAMETERS':
            assert isinstance(node.value, ast.Dict)
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                assert isinstance(value, ast.Tuple)
                found[ast.literal_eval(key)] = ast.literal_eval(value.elts[0])
    return found | {'image_topic': 'image_topics'}


def test_launch_arguments() -> None:
    written = {name: cells[0].strip('`') for name, cells in table('Launch').items()}
    assert written == launch_arguments()


def test_parameters() -> None:
    written, known = table('Parameters'), all_parameters()
    assert list(written) == list(known)
    for name, (default, values, unit, change, _) in written.items():
        parameter = known[name]
        shown = default.strip('`')
        if isinstance(parameter.default, tuple):
            assert tuple(yaml.safe_load(shown)) == parameter.default
        else:
            value = yaml.safe_load(shown)
            assert (value, type(value)) == (parameter.default, type(parameter.default))
        assert unit == parameter.unit, name
        assert change == ('runtime' if parameter.runtime else 'restart'), name
        if parameter.choices:
            assert tuple(re.findall(r'`(\w+)`', values)) == parameter.choices
        if parameter.minimum is not None:
            numbers = [float(number) for number in re.findall(r'-?\d+', values)]
            assert (numbers[0], numbers[-1]) == (parameter.minimum, parameter.maximum)


def test_shipped_file_differs_from_the_defaults_as_said() -> None:
    text = (ROOT / 'config' / 'seg.yaml').read_text(encoding='utf-8')
    shipped = yaml.safe_load(text)['/**']['ros__parameters']
    changed = {
        name: value
        for name, value in shipped.items()
        if all_parameters()[name].validate(value) != all_parameters()[name].default
    }
    assert changed == {'filter.score_threshold': 0.5}
    assert 'sets `filter.score_threshold` to 0.5' in section('Parameters')


def test_shipped_file_names_every_choice() -> None:
    text = (ROOT / 'config' / 'seg.yaml').read_text(encoding='utf-8')
    remarks = dict.fromkeys(all_parameters(), '')
    remark = ''
    for line in text.splitlines():
        said, setting = re.match(r'\s*(?:# ?(.*)|([\w.]+):.*|.*)', line).groups()  # type: ignore[union-attr]
        if setting in remarks:
            remarks[setting] = remark
        remark = f'{remark} {said}' if said else ''
    for name, parameter in all_parameters().items():
        if parameter.choices:
            lacking = [c for c in parameter.choices if not re.search(rf'\b{c}\b', remarks[name])]
            assert not lacking, name
    assert 'folder of `segnode export`' in remarks['model']


class _Recorder:
    """Stands for a node: keeps what is published."""

    def __init__(self) -> None:
        self.topics: dict[str, str] = {}

    def create_publisher(self, message_type: type, topic: str, *_: Any, **__: Any) -> None:
        package = message_type.__module__.partition('.')[0]
        self.topics[topic.removeprefix('~/')] = f'{package}/{message_type.__name__}'


def topics_table() -> dict[str, str]:
    """The outputs and their types, as the table has them."""
    return {topic: cells[0].strip('`') for topic, cells in table('Topics').items()}


def test_topics() -> None:
    node = _Recorder()
    Outputs(node, '', ['cone'], raw_masks=True)
    written = topics_table()
    others = {
        'camera_info': 'sensor_msgs/CameraInfo',
        '/diagnostics': 'diagnostic_msgs/DiagnosticArray',
    }
    assert written == node.topics | others


def test_encodings() -> None:
    text = section('Topics').replace(
        'bayer_{rggb,bggr,gbrg,grbg}8', 'bayer_rggb8 bayer_bggr8 bayer_gbrg8 bayer_grbg8'
    )
    for encoding in SUPPORTED_ENCODINGS:
        assert re.search(rf'\b{encoding}\b', text), encoding


def test_presets_and_their_licences() -> None:
    written = table('Presets')
    assert set(written) == set(PRESETS)
    for name, (_, licence) in written.items():
        assert PRESETS[name].licence.startswith(licence)


def test_the_model_descriptions_are_valid(tmp_path: Path) -> None:
    # Their answers are compared in test_exported_parity.
    found = []
    for text in blocks('yaml'):
        if 'backend: ' not in text:
            continue
        path = tmp_path / 'exported.yaml'
        path.write_text(text, encoding='utf-8')
        found.append(read_description(path))
    assert [each.input.layout for each in found] == ['chw', 'list_of_dict', 'list_of_chw']


def test_benchmark_figures_are_the_measured_ones() -> None:
    text = section('Benchmark')
    row_of_two = r'^\| .+ \| ([\d.]+) \| ([\d.]+) \|$'
    choices = re.findall(row_of_two, section('Engine on CPUs'), re.MULTILINE)
    results = {
        path.stem: json.loads(path.read_text(encoding='utf-8'))
        for path in (ROOT / 'test' / 'benchmark_results').glob('*.json')
    }
    written = 0
    for name in ('cpu', 'cpu_fp32', 'cpu_references'):
        for row in (*results[name]['rows'], *results[name]['parts']):
            digits = 1 if 'name' in row else 2
            for against in row['against'].values():
                p50, p5, p95 = (against[f'ratio_{p}'] for p in ('p50', 'p5', 'p95'))
                ratio = f'{p50:.{digits}f} ({p5:.{digits}f} to {p95:.{digits}f}) |'
                assert ratio in text, row
                written += 1
    assert len(re.findall(r'\([\d.]+ to [\d.]+\) \|', text)) == written
    for column, precision in enumerate(('bf16', 'fp32')):
        rows = results['cpu_choices'][precision]
        ratios = {name: row['times_as_it_is']['p50'] for name, row in rows.items()}
        measured = [round(ratios.get(name, 1.0), 2) for name in results['cpu_choices']['bf16']]
        # The engine as it is has no row of its own.
        assert sorted(float(cells[column]) for cells in choices) == sorted(measured[1:])


def test_figures_of_other_engines_are_the_measured_ones() -> None:
    path = ROOT / 'test' / 'benchmark_results' / 'engines_cpu.json'
    (row,) = json.loads(path.read_text(encoding='utf-8'))['rows']
    lines = [f'{row["ms_p50"]:.0f} | 1 |']
    for against in row['against'].values():
        p50, p5, p95 = (1 / against[f'ratio_{p}'] for p in ('p50', 'p95', 'p5'))
        lines.append(f'{against["ms_p50"]:.0f} | {p50:.2f} ({p5:.2f} to {p95:.2f}) |')
    written = re.findall(
        r'^\| .+, (?:bf16|int8|fp32) \| (.+)$', section('Other engines'), re.MULTILINE
    )
    assert sorted(written) == sorted(lines)


def test_figures_of_the_whole_node_are_the_measured_ones() -> None:
    lines = []
    for name in ('node_cpu', 'node_cpu_demo'):
        path = ROOT / 'test' / 'benchmark_results' / f'{name}.json'
        for row in json.loads(path.read_text(encoding='utf-8'))['rows']:
            frames = ' / '.join(str(row[key]) for key in ('sent', 'received', 'published'))
            figures = (
                f'{row["age_ms_p50"]:.1f} ({row["age_ms_p95"]:.1f}) | {row["relay_ms_p50"]:.1f} | '
                f'{row["overhead_ms_p50"]:.1f} | {row["cpu_ms"]:.1f} ({row["relay_cpu_ms"]:.1f})'
            )
            model = row['model'] if row['model'] == 'null' else 'embedded'
            lines.append(
                f'| {model} | {row["shape"]} | {row["transport"]} | {frames} | {figures} |'
            )
    written = [
        line for line in section('The whole node').splitlines() if re.match(r'\| \w+ \| \d', line)
    ]
    assert written == lines


def test_links_lead_somewhere() -> None:
    headings = re.findall(r'^#+ (.+)$', README, re.MULTILINE)
    anchors = {re.sub(r'[^\w -]', '', h).strip().lower().replace(' ', '-') for h in headings}
    links = re.findall(r'\]\(([^)]+)\)', README)
    assert len(links) > 20
    for link in links:
        if link.startswith('#'):
            assert link[1:] in anchors, link
        else:
            assert (ROOT / link).is_file(), link
    for picture in (ROOT / 'resource' / 'images').iterdir():
        assert f'resource/images/{picture.name}' in README
        assert picture.stat().st_size < 200_000


def _answer(peer: Peer, areas: list[int]) -> tuple[Detection2DArray, ImageMessage]:
    """What the node publishes for a frame with instances of so many pixels, one a row."""
    count = len(areas)
    found = Detections(
        boxes_xyxy=np.zeros((count, 4), np.float32),
        scores=np.linspace(0.9, 0.6, count).astype(np.float32),
        class_ids=np.arange(count),
        mask_areas=np.array(areas, np.int64),
    )
    labels = np.zeros((8, 13), np.uint16)
    for k, area in enumerate(areas, start=1):
        labels[k, :area] = k
    header, names = peer.header(), [f'thing_{k}' for k in range(count)]
    return (
        messages.detections_message(header, found, names, 'name'),
        messages.instance_mask_message(header, labels),
    )


def test_the_planner_joins_by_stamp(tmp_path: Path) -> None:
    (program,) = [block for block in blocks('python') if 'Planner' in block]
    path = tmp_path / 'planner.py'
    path.write_text(program, encoding='utf-8')
    # Names of this test's own, as another node may share the domain.
    topics = [f'/readme_{os.getpid()}/{name}' for name in ('detections', 'instance_mask')]
    arguments = ['--ros-args']
    for topic in topics:
        arguments += ['-r', f'/segnode/{topic.rpartition("/")[2]}:={topic}']
    command = [sys.executable, str(path), *arguments]
    with Peer() as peer, Process(command, tmp_path / 'log') as planner:
        detections = peer.advertise(Detection2DArray, topics[0])
        masks = peer.advertise(ImageMessage, topics[1])
        for publisher in (detections, masks):
            wait_until(lambda p=publisher: p.get_subscription_count() > 0, planner.output)

        # One frame's mask never comes, one is empty, and two come in the other order.
        detections.publish(_answer(peer, [1, 1])[0])
        for message, publisher in zip(_answer(peer, []), (detections, masks), strict=True):
            publisher.publish(message)
        first, second = _answer(peer, [5, 0, 13]), _answer(peer, [7])
        for mask in (first[1], second[1]):
            masks.publish(mask)
        detections.publish(first[0])
        detections.publish(second[0])
        planner.wait_for('thing_0 owns 7 pixels')
        said = re.findall(r'(thing_\d owns \d+ pixels, the lowest in row -?\d+)', planner.output())
        assert said == [
            'thing_0 owns 5 pixels, the lowest in row 1',
            'thing_1 owns 0 pixels, the lowest in row -1',
            'thing_2 owns 13 pixels, the lowest in row 3',
            'thing_0 owns 7 pixels, the lowest in row 1',
        ]


def test_the_costs_follow_names_and_confidence(tmp_path: Path) -> None:
    """With the node's own messages: of few classes, and of so many that they need 16 bits."""
    (program,) = [block for block in blocks('python') if 'class Costs' in block]
    path = tmp_path / 'costs.py'
    path.write_text(program, encoding='utf-8')
    own = f'/readme_{os.getpid()}/costs'
    inputs = {
        'label_info': LabelInfo,
        'class_mask': ImageMessage,
        'confidence_mask': ImageMessage,
    }
    arguments = ['--ros-args', '-r', f'costs/image:={own}']
    for name in inputs:
        arguments += ['-r', f'/segnode/{name}:={own}/{name}']
    # A person, a cone that is less certain, and one of a class that costs nothing.
    labels = np.array([[0, 1, 1], [2, 3, 0]], np.uint16)
    scores = np.array([1.0, 0.5, 0.9], np.float32)
    expected = [[0, 254, 254], [100, 0, 0]]
    with (
        Peer() as peer,
        Process([sys.executable, str(path), *arguments], tmp_path / 'log') as node,
    ):
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publishers = {
            name: peer.node.create_publisher(
                kind, f'{own}/{name}', latched if kind is LabelInfo else 5
            )
            for name, kind in inputs.items()
        }
        peer.subscribe(ImageMessage, own)
        for publisher in publishers.values():
            wait_until(lambda p=publisher: p.get_subscription_count() > 0, node.output)
        wait_until(lambda: peer.node.count_publishers(own) > 0, node.output)
        for count, encoding in ((3, 'mono8'), (300, '16UC1')):
            names = [f'thing_{index}' for index in range(count)]
            ids = np.array([count - 1, 0, 1])
            names[count - 1], names[0] = 'person', 'cone'
            header = peer.header()
            publishers['label_info'].publish(messages.label_info_message(header, names, 0.5))
            node.wait_for(f'{count} classes')
            mask = messages.class_mask_message(header, labels, ids, count)
            assert deserialize_message(mask, ImageMessage).encoding == encoding
            publishers['class_mask'].publish(mask)
            confidence = messages.confidence_mask_message(header, labels, scores)
            publishers['confidence_mask'].publish(confidence)
            wait_until(lambda h=header: peer.find(own, h) is not None, node.output)
            cost = peer.find(own, header)
            assert (cost.encoding, cost.step, cost.header) == ('mono8', 3, header)
            assert np.frombuffer(cost.data, np.uint8).reshape(2, 3).tolist() == expected


def test_what_is_written_for_nav2_names_what_there_is() -> None:
    manager, layer = (yaml.safe_load(text) for text in blocks('yaml') if 'backend: ' not in text)
    ((name, parameters_),) = manager.items()
    assert parameters_['ros__parameters']['node_names'] == ['segnode']
    camera = layer['semantic_layer']['camera']
    types = {
        key: topics_table().get(camera[key].removeprefix('/segnode/'))
        for key in camera
        if key.endswith('_topic') and key != 'pointcloud_topic'
    }
    assert types == {
        'segmentation_topic': 'sensor_msgs/Image',
        'confidence_topic': 'sensor_msgs/Image',
        'labels_topic': 'vision_msgs/LabelInfo',
    }
    (launch,) = [block for block in blocks('python') if 'lifecycle_manager' in block]
    assert f"name='{name}'" in launch
    given = ast.literal_eval(re.search(r'launch_arguments=(\{.*?\})', launch)[1])
    assert set(given) <= set(launch_arguments())
    assert given['autostart'] == 'false'
