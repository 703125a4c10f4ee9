# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Ground truth in COCO's instance format, as it comes out of people's tools.

An entry that cannot be used is left out, counted by its reason and named; what has one meaning
only, as an id written ``3.0`` or a missing area, is taken as meant and said. The rest scores.

An object whose mask cannot be used keeps its box: it counts for box AP, and in mask AP detections
inside its box are neither right nor wrong (`segnode.evaluation.metrics`). An object without a
usable place, image or class is left out, so that a detection on it counts as wrong.

H, W image height and width.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segnode.errors import AnnotationError, first_line
from segnode.evaluation.entries import (
    AnnotatedImage,
    Findings,
    Id,
    Report,
    by_any_form,
    checked_instance,
    ends,
    few,
    merge_names,
    name_parts,
    usable_categories,
    usable_images,
)
from segnode.evaluation.not_coco import describe_bytes, describe_json
from segnode.text_files import decode, read_at_most, shown

_LARGEST = 2 << 30


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Annotations:
    """Checked instance annotations.

    Attributes:
        images: by image id, an integer or a text as in the file.
        categories: category id by name; of several categories of one name the first that has
            objects, and all their objects are of it.
        instances: COCO annotation dicts, numbered from 1 (pycocotools takes an id of 0 for
            "unmatched"), their segmentation as run lengths; without one where only the box is
            usable.
    """

    images: dict[Id, AnnotatedImage]
    categories: dict[str, Id]
    instances: list[dict[str, Any]]
    _by_parts: dict[tuple[str, ...], list[AnnotatedImage]] = field(init=False, repr=False)
    _by_name: dict[str, AnnotatedImage] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_parts: dict[tuple[str, ...], list[AnnotatedImage]] = defaultdict(list)
        by_name: dict[str, AnnotatedImage] = {}
        for image in self.images.values():
            parts = name_parts(image.file_name)
            by_parts[parts].append(image)
            by_name.setdefault(parts[-1], image)
        object.__setattr__(self, '_by_parts', dict(by_parts))
        object.__setattr__(self, '_by_name', by_name)

    @classmethod
    def read(
        cls, path: Path, report: Report = _silent, pictures: Sequence[Path] = ()
    ) -> Annotations:
        """Read ``instances_*.json``.

        Args:
            path: the file.
            report: is told in a line a kind what was left out, and what was taken as meant.
            pictures: files that give their size to images that are annotated without one.

        Raises:
            AnnotationError: the file is missing, no JSON, not in COCO's instance format, or none
                of its images, categories or annotations can be used.
        """
        expected = f"{path}: expected JSON in COCO's instance format, found"
        try:
            if path.is_char_device() or path.is_block_device():
                raise AnnotationError(f'{expected} a device')
            data = read_at_most(path, _LARGEST)
        except OSError as error:
            raise AnnotationError(f'{path}: cannot be read ({error.strerror})') from None
        if data is None:
            raise AnnotationError(f'{expected} more than {_LARGEST >> 30} GiB; split the file')
        try:
            dataset = json.loads(decode(data))
        except RecursionError:
            raise AnnotationError(f'{expected} lists within lists without end') from None
        except MemoryError:
            raise AnnotationError(f'{expected} more than this machine has memory for') from None
        except ValueError as error:
            found = describe_bytes(data) or f'something else ({shown(first_line(error))})'
            raise AnnotationError(f'{expected} {found}') from None
        return cls.from_coco(dataset, str(path), report, pictures)

    @classmethod
    def from_coco(
        cls,
        dataset: object,
        name: str = 'annotations',
        report: Report = _silent,
        pictures: Sequence[Path] = (),
    ) -> Annotations:
        """Check a parsed dataset; ``name`` stands at the head of messages.

        Raises:
            AnnotationError: as `read`.
        """
        if not isinstance(dataset, dict) or not all(
            isinstance(dataset.get(key), list) for key in ('images', 'categories', 'annotations')
        ):
            raise AnnotationError(
                f"{name}: expected an object in COCO's instance format, found "
                f'{describe_json(dataset)}'
            )
        findings = Findings()
        images = usable_images(dataset['images'], pictures, findings)
        names = usable_categories(dataset['categories'], findings)
        images_of = by_any_form(images, dataset['images'])
        names_of = by_any_form(names, dataset['categories'])
        instances: list[dict[str, Any]] = []
        for index, item in enumerate(dataset['annotations']):
            place = f'annotations[{index}]'
            instance = checked_instance(item, place, images_of, names_of, findings)
            if instance is not None:
                instances.append(instance | {'id': len(instances) + 1})
        kept = {'images': images, 'categories': names, 'annotations': instances}
        for key, usable in kept.items():
            if dataset[key] and not usable:
                why = '; '.join(findings.lines()[:3])
                raise AnnotationError(
                    f'{name}: none of the {len(dataset[key])} {key} can be used; {why}'
                )
        for line in findings.lines():
            report(f'{name}: {line}')
        # So CVAT writes masks that were painted.
        if instances and all(item['iscrowd'] for item in instances):
            report(
                f'{name}: all {len(instances)} annotations are crowds (iscrowd), so none counts'
            )
        categories = merge_names(names, instances, report, name)
        return cls({image.id: image for image in images.values()}, categories, instances)

    def find(self, path: Path) -> AnnotatedImage | None:
        """Return the image that a file is, or None where none is.

        The names agree, and as many of the folders as the annotated file name has.

        Raises:
            AnnotationError: several images are it.
        """
        # As it was named first: a store of data may keep its files under other names.
        for full in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):  # noqa: PTH100
            agreeing = [image for end in ends(full) for image in self._by_parts.get(end, ())]
            if len(agreeing) > 1:
                first, second = (f'{shown(i.file_name)} (id {shown(i.id)})' for i in agreeing[:2])
                raise AnnotationError(
                    f'{path}: expected one annotated image of this name, found {len(agreeing)} '
                    f'annotated images, such as {first} and {second}; give them unique names'
                )
            if agreeing:
                return agreeing[0]
        return None

    def match(self, paths: Sequence[Path], report: Report) -> dict[Path, AnnotatedImage]:
        """Return the annotated image of every picture that is one.

        Args:
            paths: files, any of which may be given several times.
            report: is told of the pictures that are none, and of those known by name alone.

        Raises:
            AnnotationError: none is annotated, a picture is several annotated images, or several
                pictures are one.
        """
        found: dict[Path, AnnotatedImage] = {}
        taken: dict[Id, Path] = {}
        elsewhere, unknown = [], []
        for path in dict.fromkeys(paths):
            image = self.find(path)
            if image is None:
                named = self._by_name.get(name_parts(path.name)[-1])
                if named is None:
                    unknown.append(path.name)
                else:
                    elsewhere.append(f'{path} is not {shown(named.file_name)}')
                continue
            other = taken.setdefault(image.id, path)
            if os.path.realpath(other) != os.path.realpath(path):
                raise AnnotationError(
                    f'{other} and {path}: both may be the annotated {shown(image.file_name)}; '
                    'give one of them, or annotations whose file names have folders'
                )
            found[path] = image
        if unknown:
            report(f'left out {len(unknown)} images without annotations ({few(unknown)})')
        if elsewhere:
            report(
                f'left out {len(elsewhere)} images whose name is annotated, but in another folder '
                f'({few(elsewhere)})'
            )
        if not found:
            known = next((shown(image.file_name) for image in self.images.values()), 'none')
            given = next((str(path) for path in paths), 'none')
            raise AnnotationError(
                'none of the images is annotated: compare the file names '
                f'({given} is given, {known} is annotated)'
            )
        by_name = sum(len(name_parts(image.file_name)) == 1 for image in found.values())
        if by_name:
            report(
                f'{by_name} images were found in the annotations by their name alone, '
                'as no folder stands there'
            )
        return found


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Annotations, and which picture is which of their images.

    Attributes:
        annotations: the ground truth.
        images: the annotated image of every picture that is one.
    """

    annotations: Annotations
    images: dict[Path, AnnotatedImage]

    @classmethod
    def read(cls, path: Path, pictures: Sequence[Path], report: Report) -> GroundTruth:
        """Read annotations of pictures.

        Raises:
            AnnotationError: as `Annotations.read` and `Annotations.match`.
        """
        annotations = Annotations.read(path, report, pictures)
        return cls(annotations, annotations.match(pictures, report))

    @property
    def image_ids(self) -> set[Id]:
        """Return the ids of the images that pictures are given of."""
        return {image.id for image in self.images.values()}
