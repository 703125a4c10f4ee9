# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Procedural camera scenes with exact instance masks.

A camera circles a handful of objects on a textured floor. Each object is one or two analytic
solids (a truncated quadric of revolution or a cuboid), found pixel by pixel by ray casting, so the
masks are exact and shading, texture and occlusion follow from geometry. Light, motion blur and
sensor noise are then added. Every frame is a function of the seed and the frame index alone.

World frame: metres, z up, the floor at z = 0. Camera frame: x right, y down, z forward.
H, W image height and width; N instances; h, w height and width of an image patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = ('cone', 'ball', 'box', 'barrel', 'pallet')

# Disjoint: what the model learns from, what its training is judged on, what the demo shows.
TRAIN_SEEDS = range(0, 1_000_000)
VALIDATION_SEEDS = range(1_000_000, 1_001_000)
DEMO_SEEDS = range(2_000_000, 2_001_000)

MIN_VISIBLE_PX = 200
MIN_VISIBLE_FRACTION = 0.2

# OpenCV's stubs leave the element type open, so the names say it: float32 and uint8.
FloatArray = NDArray[Any]
Image = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneFrame:
    """One rendered frame and its ground truth.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        instance_map: (H, W) uint8, 0 = background, k = the k-th instance of the arrays below.
        instance_ids: (N,) int64, the same number for the same object in every frame of a scene.
        class_ids: (N,) int64, index into `CLASS_NAMES`.
        boxes_xyxy: (N, 4) float32, of the visible pixels, right and bottom edges exclusive.
        occlusion: (N,) float32, share of the object's pixels in the image that others cover.
        stamp_ns: nanoseconds since the start of the scene.
    """

    image: Image
    instance_map: Image
    instance_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    boxes_xyxy: FloatArray
    occlusion: FloatArray
    stamp_ns: int

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) bool: the visible pixels of each instance."""
        numbers = np.arange(1, len(self.class_ids) + 1, dtype=np.uint8)
        return np.equal(self.instance_map[None], numbers[:, None, None])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solid:
    """A solid in its object's frame, resting on z = `bottom`, `height` high.

    `profile` (a, b, c) is a solid of revolution of radius sqrt(a + b z + c z^2), z above `bottom`;
    without it the solid is a cuboid of `half_xy`.
    """

    texture: Image
    half_xy: tuple[float, float]
    height: float
    bottom: float = 0.0
    profile: tuple[float, float, float] | None = None
    shininess: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    instance_id: int
    class_id: int
    solids: tuple[_Solid, ...]
    radius: float
    position_xy: NDArray[np.float64]
    yaw: float
    swing_xy: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    swing_rad_s: float = 0.0
    phase: float = 0.0

    def pose(self, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position (3,) and rotation (3, 3), object to world, at a time."""
        along = np.sin(self.swing_rad_s * seconds + self.phase)
        position = np.append(self.position_xy + self.swing_xy * along, 0.0)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return position, np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def roll(self, seconds: float) -> NDArray[np.float64]:
        """Rotation (3, 3) of a ball's skin that has rolled without slipping."""
        length = float(np.linalg.norm(self.swing_xy))
        if length == 0.0:
            return np.eye(3)
        axis = np.array([-self.swing_xy[1], self.swing_xy[0], 0.0]) / length
        angle = length * np.sin(self.swing_rad_s * seconds + self.phase) / self.radius
        rotation, _ = cv2.Rodrigues(axis * angle)
        return np.asarray(rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Camera:
    position: NDArray[np.float64]
    rotation: NDArray[np.float64]  # rows: right, down, forward in the world
    focal_px: float
    image_hw: tuple[int, int]

    @property
    def centre_px(self) -> tuple[float, float]:
        return self.image_hw[1] / 2, self.image_hw[0] / 2

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Pixels (P, 2) and depths (P,) of world points (P, 3)."""
        local = (points - self.position) @ self.rotation.T
        depth = np.maximum(local[:, 2], 1e-6)
        return local[:, :2] / depth[:, None] * self.focal_px + self.centre_px, local[:, 2]


@dataclass(frozen=True, slots=True)
class _Patch:
    """What one object covers in the image, before others hide it: depths are inf elsewhere."""

    rows: slice
    columns: slice
    depth: FloatArray
    colour: FloatArray
    inside_fraction: float


class Scene:
    """A seeded scene: a moving camera, at least four objects in sight, changing light.

    Objects of which fewer than `MIN_VISIBLE_PX` pixels or less than `MIN_VISIBLE_FRACTION` can be
    seen are left out of the frame altogether (only their shadow stays), so that the truth names
    everything the image shows.

    """

    def __init__(
        self, seed: int, image_hw: tuple[int, int] = (480, 640), rate_hz: float = 10.0
    ) -> None:
        """Draws everything that stays the same.

        Args:
            seed: One of the seed ranges of this module.
            image_hw: Height and width in pixels; the field of view stays the same.
            rate_hz: Frames per second of scene time.
        """
        self.seed = seed
        self.image_hw = image_hw
        self.rate_hz = rate_hz
        rng = np.random.default_rng(seed)
        self._ground = _ground_texture(rng)
        self._ground_far = cv2.blur(self._ground, (21, 21))
        self._panorama = _panorama(rng)
        self._objects = _place_objects(rng, count=int(rng.integers(7, 13)))
        self._camera_path = _CameraPath.sample(rng)
        self._light = _Light.sample(rng)
        self._optics = _Optics.sample(rng, image_hw)

    def frames(self, count: int) -> Iterator[SceneFrame]:
        """The first `count` frames."""
        return (self.frame(index) for index in range(count))

    def frame(self, index: int) -> SceneFrame:
        """Renders frame `index`; any order gives the same pictures."""
        seconds = index / self.rate_hz
        camera = self._camera_path.camera(seconds, self.image_hw)
        drawn = []
        for item in self._objects:
            patch = _draw_object(item, camera, self._light, seconds)
            if patch is not None and patch.inside_fraction >= MIN_VISIBLE_FRACTION:
                drawn.append((item, patch))
        while True:
            instance_map, seen_px = _compose([patch for _, patch in drawn], self.image_hw)
            whole_px = [int(np.isfinite(patch.depth).sum()) for _, patch in drawn]
            # Hidden objects go one at a time: without one, those behind it show more.
            shares = [seen / max(whole, 1) for seen, whole in zip(seen_px, whole_px, strict=True)]
            hidden = [
                k
                for k, (seen, share) in enumerate(zip(seen_px, shares, strict=True))
                if seen < MIN_VISIBLE_PX or share < MIN_VISIBLE_FRACTION
            ]
            if not hidden:
                break
            drawn.pop(min(hidden, key=shares.__getitem__))
        canvas = self._background(camera, seconds)
        for k, (_, patch) in enumerate(drawn, start=1):
            window = (patch.rows, patch.columns)
            cv2.copyTo(patch.colour, (instance_map[window] == k).astype(np.uint8), canvas[window])
        blur_px = self._camera_path.image_speed_px(seconds, camera.focal_px)
        noise_rng = np.random.default_rng((self.seed, index))
        return SceneFrame(
            image=self._optics.expose(canvas, self._light.gain(seconds), blur_px, noise_rng),
            instance_map=instance_map,
            instance_ids=np.array([item.instance_id for item, _ in drawn], np.int64),
            class_ids=np.array([item.class_id for item, _ in drawn], np.int64),
            boxes_xyxy=mask_boxes(instance_map, range(1, len(drawn) + 1)),
            occlusion=1 - np.array(shares, np.float32),
            stamp_ns=round(seconds * 1e9),
        )

    def _background(self, camera: _Camera, seconds: float) -> FloatArray:
        """(H, W, 3) float32, linear 0 to 255: floor with shadows, horizon, sky or wall."""
        height, width = self.image_hw
        rotation, focal = camera.rotation, camera.focal_px
        centre_x, centre_y = camera.centre_px
        intrinsics = np.array([[focal, 0, centre_x], [0, focal, centre_y], [0, 0, 1.0]])
        to_image = intrinsics @ np.column_stack(
            [rotation[:, 0], rotation[:, 1], -rotation @ camera.position]
        )
        middle = self._ground.shape[1] / 2
        to_texels = np.array(
            [[_TEXELS_PER_METRE, 0, middle], [0, _TEXELS_PER_METRE, middle], [0, 0, 1.0]]
        )
        to_texture = to_texels @ np.linalg.inv(to_image)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        near = cv2.warpPerspective(
            self._ground, to_texture, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP
        )
        # What is far is blurred against aliasing, so that a quarter of the pixels is enough.
        far = cv2.warpPerspective(
            self._ground_far,
            to_texture @ np.diag([2.0, 2.0, 1.0]),
            (width // 2, height // 2),
            flags=flags,
            borderMode=cv2.BORDER_WRAP,
        )
        far = cv2.resize(far, (width, height))
        u, v = _ray_slopes(camera, slice(0, height), slice(0, width))
        row = rotation.astype(np.float32)[:, 2]
        sink = -(row[2] + row[0] * u + row[1] * v)
        distance = np.float32(camera.position[2]) / np.maximum(sink, np.float32(1e-3))
        blend = np.clip((distance - 2) / 5, 0, 1)
        ground = cv2.blendLinear(near, far, 1 - blend, blend)

        heading = np.arctan2(rotation[2, 0], rotation[2, 1])
        slope = -np.arctan2(rotation[0, 2], np.hypot(rotation[1, 2], 1e-6))
        horizon = centre_y + focal * rotation[2, 2] / -rotation[1, 2]
        cos, sin = np.cos(slope), np.sin(slope)
        stretch = _PANORAMA_HW[0] / 0.75 / height
        turn = np.array([[cos, sin], [-sin, cos]]) * stretch
        start = np.array([heading * focal * stretch, _PANORAMA_HW[0]])
        sky = cv2.warpAffine(
            self._panorama,
            np.column_stack([turn, start - turn @ [centre_x, horizon]]),
            (width, height),
            flags=flags,
            borderMode=cv2.BORDER_WRAP,
        )
        cv2.copyTo(sky, (sink <= 2e-3).astype(np.uint8), ground)
        shadows = self._shadows(camera, seconds)
        canvas = cv2.multiply(ground, cv2.merge([shadows] * 3), dtype=cv2.CV_32F)
        hazy = (distance > 12) & (sink > 2e-3)
        haze = np.minimum((distance[hazy] - 12) / 30, 1)[:, None]
        colour = self._panorama[_PANORAMA_HW[0] - 1].mean(axis=0, dtype=np.float32)
        canvas[hazy] += (colour - canvas[hazy]) * haze
        return np.asarray(canvas, np.float32)

    def _shadows(self, camera: _Camera, seconds: float) -> FloatArray:
        """(H, W) float32 factor on the floor's brightness."""
        light = self._light
        factor = np.full(self.image_hw, 255, np.uint8)
        fall = light.direction[:2] / light.direction[2]
        for item in self._objects:
            position, rotation = item.pose(seconds)
            outline = np.concatenate([_outline(solid) for solid in item.solids])
            points = position + outline @ rotation.T
            ground = points[:, :2] - points[:, 2:] * fall
            hull = cv2.convexHull(ground.astype(np.float32))[:, 0]
            pixels, depth = camera.project(np.column_stack([hull, np.zeros(len(hull))]))
            pixels = pixels[depth > 0.4]
            if len(pixels) > 2:
                fixed = np.clip(pixels * 16, -1e6, 1e6).astype(np.int32)
                cv2.fillConvexPoly(factor, fixed, int(255 * light.shadow), cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(factor, (0, 0), light.penumbra_px)
        return np.multiply(soft, 1 / 255, dtype=np.float32)


def coco_annotations(frames: Iterable[SceneFrame]) -> dict[str, Any]:
    """Ground truth as a COCO dataset; image ids count from 0, category ids are class ids.

    Needs pycocotools. Masks are compressed run lengths with text counts, fit for JSON.
    """
    from pycocotools import mask as coco_mask

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, frame in enumerate(frames):
        height, width = frame.instance_map.shape
        images.append(
            {'id': image_id, 'file_name': f'{image_id:06d}', 'height': height, 'width': width}
        )
        for class_id, box, mask in zip(
            frame.class_ids, frame.boxes_xyxy, frame.masks, strict=True
        ):
            encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            left, top, right, bottom = map(float, box)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': int(class_id),
                    'bbox': [left, top, right - left, bottom - top],
                    'area': int(np.count_nonzero(mask)),
                    'segmentation': {
                        'size': [height, width],
                        'counts': encoded['counts'].decode('ascii'),
                    },
                    'iscrowd': 0,
                }
            )
    return {
        'info': {'description': 'segnode rendered scene'},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': k, 'name': name} for k, name in enumerate(CLASS_NAMES)],
    }


# Geometry


def _ray_slopes(camera: _Camera, rows: slice, columns: slice) -> tuple[FloatArray, FloatArray]:
    """Horizontal (1, w) and vertical (h, 1) slopes of the rays through pixel centres."""
    centre_x, centre_y = camera.centre_px
    u = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - centre_x)[None, :]
    v = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - centre_y)[:, None]
    return u / np.float32(camera.focal_px), v / np.float32(camera.focal_px)


def _outline(solid: _Solid) -> NDArray[np.float64]:
    """(P, 3) points whose convex hull holds the solid, in the object's frame."""
    levels = np.linspace(0, solid.height, 2 if solid.profile is None else 5)
    if solid.profile is None:
        (x, y) = solid.half_xy
        ring = np.array([[x, y], [-x, y], [-x, -y], [x, -y]])
        radii = np.ones(len(levels))
    else:
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = np.column_stack([np.cos(angles), np.sin(angles)])
        radii = np.sqrt(np.maximum(np.polyval(solid.profile[::-1], levels), 0))
    return np.concatenate(
        [
            np.column_stack([ring * radius, np.full(len(ring), solid.bottom + level)])
            for radius, level in zip(radii, levels, strict=True)
        ]
    )


def _draw_object(item: _Object, camera: _Camera, light: _Light, seconds: float) -> _Patch | None:
    """Depth and colour of an object on the part of the image it may cover; None out of sight."""
    position, rotation = item.pose(seconds)
    low = np.array([(-solid.half_xy[0], -solid.half_xy[1], solid.bottom) for solid in item.solids])
    high = np.array([(*solid.half_xy, solid.bottom + solid.height) for solid in item.solids])
    bounds = np.stack([low.min(axis=0), high.max(axis=0)])
    corners = np.array(
        [
            [bounds[i, 0], bounds[j, 1], bounds[k, 2]]
            for i in (0, 1)
            for j in (0, 1)
            for k in (0, 1)
        ]
    )
    pixels, depths = camera.project(position + corners @ rotation.T)
    if depths.min() < 0.3:
        return None
    height, width = camera.image_hw
    left, top = np.floor(pixels.min(axis=0)).astype(int)
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int)
    rows = slice(max(top, 0), min(bottom, height))
    columns = slice(max(left, 0), min(right, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    inside = (rows.stop - rows.start) * (columns.stop - columns.start)
    inside_fraction = inside / ((right - left) * (bottom - top))

    u, v = _ray_slopes(camera, rows, columns)
    to_object = rotation.T @ camera.rotation.T  # camera frame to object frame
    rays = [
        (row[2] + row[0] * u + row[1] * v).astype(np.float32)
        for row in to_object.astype(np.float32)
    ]
    origin = rotation.T @ (camera.position - position)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    depth = np.full(shape, np.inf, np.float32)
    colour = np.zeros((*shape, 3), np.float32)
    for solid in item.solids:
        start = origin - (0, 0, solid.bottom)
        if solid.profile is None:
            hit, normal, uv = _cast_cuboid(solid, start, rays)
        else:
            skin = item.roll(seconds) if solid.profile[2] == -1.0 else None
            hit, normal, uv = _cast_revolution(solid, start, rays, skin)
        nearer = hit < depth
        texels = cv2.remap(
            solid.texture,
            uv[0] * solid.texture.shape[1],
            uv[1] * solid.texture.shape[0],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        shade = light.shade(normal, rays, rotation.T @ light.direction, solid.shininess, texels)
        np.copyto(depth, hit, where=nearer)
        np.copyto(colour, shade, where=nearer[..., None])
    return _Patch(rows, columns, depth, colour, inside_fraction)


def _cast_cuboid(
    solid: _Solid, origin: NDArray[np.float64], rays: list[FloatArray]
) -> tuple[FloatArray, list[FloatArray], tuple[FloatArray, FloatArray]]:
    """Depth (h, w), inf where missed; unit normal; texture coordinates in [0, 1].

    The slab method: a ray is inside where it is between the planes of all three axes. The lower
    half of the texture is the top face's.
    """
    half = np.array([*solid.half_xy, solid.height / 2], np.float32)
    start = (origin - (0, 0, solid.height / 2)).astype(np.float32)
    entries, exits = [], []
    for axis in range(3):
        ray = np.where(np.abs(rays[axis]) < 1e-6, np.float32(1e-6), rays[axis])
        one, other = (-half[axis] - start[axis]) / ray, (half[axis] - start[axis]) / ray
        entries.append(np.minimum(one, other))
        exits.append(np.maximum(one, other))
    enter = np.maximum(np.maximum(entries[0], entries[1]), entries[2])
    leave = np.minimum(np.minimum(exits[0], exits[1]), exits[2])
    hit = np.where((enter < leave) & (enter > 0), enter, np.float32(np.inf))
    reach = np.minimum(enter, np.float32(1e3))
    faces = [enter == entries[0], enter == entries[1], enter == entries[2]]
    normal = [
        np.where(face, -np.sign(ray), 0).astype(np.float32)
        for face, ray in zip(faces, rays, strict=True)
    ]
    x, y, z = ((start[i] + reach * rays[i]) / (2 * half[i]) + np.float32(0.5) for i in range(3))
    across = np.where(faces[0], y, x)
    down = np.where(faces[2], 0.5 + y * 0.5, (1 - z) * 0.5).astype(np.float32)
    return hit, normal, (across, down)


def _cast_revolution(
    solid: _Solid,
    origin: NDArray[np.float64],
    rays: list[FloatArray],
    skin: NDArray[np.float64] | None,
) -> tuple[FloatArray, list[FloatArray], tuple[FloatArray, FloatArray]]:
    """As `_cast_cuboid`, for x^2 + y^2 = a + b z + c z^2 cut at z = 0 and z = height.

    The lower half of the texture is the lid's. `skin` turns the texture of a ball, which is
    spread over the whole picture.
    """
    assert solid.profile is not None
    a, b, c = (np.float32(value) for value in solid.profile)
    ox, oy, oz = (np.float32(value) for value in origin)
    dx, dy, dz = rays
    square = dx * dx + dy * dy - c * dz * dz
    square = np.where(np.abs(square) < 1e-9, np.float32(1e-9), square)
    middle = ox * dx + oy * dy - (b / 2 + c * oz) * dz
    constant = ox * ox + oy * oy - a - b * oz - c * oz * oz
    root = np.sqrt(np.maximum(middle * middle - square * constant, 0))
    missed = middle * middle < square * constant
    hit = np.full(dx.shape, np.inf, np.float32)
    # A cone seen from steeply above is met at the second root of the equation.
    for sign in (-1, 1) if c > 0 else (-1,):
        t = (-middle + sign * root) / square
        z = oz + t * dz
        valid = ~missed & (t > 0) & (z >= 0) & (z <= solid.height)
        np.copyto(hit, t, where=valid & (t < hit))
    lid_radius2 = a + b * solid.height + c * solid.height**2
    lid = np.zeros(dx.shape, bool)
    if oz > solid.height and lid_radius2 > 1e-6:
        t = (solid.height - oz) / np.minimum(dz, -1e-6)
        x, y = ox + t * dx, oy + t * dy
        lid = (dz < -1e-6) & (x * x + y * y <= lid_radius2) & (t <= hit)
        np.copyto(hit, t, where=lid)
    reach = np.where(np.isfinite(hit), hit, np.float32(1))
    x, y, z = ox + reach * dx, oy + reach * dy, oz + reach * dz
    rise = -(b / 2 + c * z)
    length = np.sqrt(x * x + y * y + rise * rise) + np.float32(1e-9)
    normal = [
        np.where(lid, np.float32(0), x / length),
        np.where(lid, np.float32(0), y / length),
        np.where(lid, np.float32(1), rise / length),
    ]
    if skin is not None:
        turned = np.tensordot(skin.T.astype(np.float32), np.stack(normal), axes=1)
        across = cv2.phase(turned[0], turned[1]) / np.float32(2 * np.pi)
        return hit, normal, (across, np.arccos(np.clip(turned[2], -1, 1)) / np.float32(np.pi))
    across = cv2.phase(x, y) / np.float32(2 * np.pi)
    radius = np.sqrt((x * x + y * y) / max(float(lid_radius2), 1e-6))
    down = np.where(lid, 0.5 + radius * 0.5, (1 - z / np.float32(solid.height)) * 0.5)
    return hit, normal, (across, down.astype(np.float32))


def _compose(patches: list[_Patch], image_hw: tuple[int, int]) -> tuple[Image, list[int]]:
    """The number, from 1, of the nearest patch at each pixel, and the pixels of each."""
    depth = np.full(image_hw, np.inf, np.float32)
    instance_map = np.zeros(image_hw, np.uint8)
    for k, patch in enumerate(patches, start=1):
        window = (patch.rows, patch.columns)
        nearer = patch.depth < depth[window]
        np.copyto(depth[window], patch.depth, where=nearer)
        instance_map[window][nearer] = k
    return instance_map, np.bincount(instance_map.ravel(), minlength=len(patches) + 1)[1:].tolist()


def mask_boxes(instance_map: Image, numbers: Iterable[int]) -> FloatArray:
    """(N, 4) float32 xyxy boxes of the pixels of each number, right and bottom exclusive."""
    boxes = []
    for number in numbers:
        left, top, width, height = cv2.boundingRect((instance_map == number).astype(np.uint8))
        boxes.append((left, top, left + width, top + height))
    return np.array(boxes, np.float32).reshape(-1, 4)


# Camera, light and optics


@dataclass(frozen=True, slots=True, kw_only=True)
class _CameraPath:
    """An arc around the objects with sway in distance, height, aim and roll."""

    start_rad: float
    rate_rad_s: float
    distance_m: tuple[float, float]
    height_m: tuple[float, float]
    aim_m: float
    roll_rad: float
    frequency_rad_s: NDArray[np.float64]
    phase: NDArray[np.float64]
    focal_ratio: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> _CameraPath:
        return cls(
            start_rad=rng.uniform(0, 2 * np.pi),
            rate_rad_s=rng.choice([-1, 1]) * rng.uniform(0.02, 0.12),
            distance_m=(rng.uniform(3.4, 4.4), rng.uniform(0.1, 0.5)),
            height_m=(rng.uniform(0.9, 1.7), rng.uniform(0.0, 0.25)),
            aim_m=rng.uniform(0.1, 0.4),
            roll_rad=rng.uniform(0, 0.04),
            frequency_rad_s=rng.uniform(0.3, 1.0, 5),
            phase=rng.uniform(0, 2 * np.pi, 5),
            focal_ratio=rng.uniform(0.82, 0.98),
        )

    def camera(self, seconds: float, image_hw: tuple[int, int]) -> _Camera:
        sway = np.sin(self.frequency_rad_s * seconds + self.phase)
        angle = self.start_rad + self.rate_rad_s * seconds
        distance = self.distance_m[0] + self.distance_m[1] * sway[0]
        position = np.array([0.0, 0.0, self.height_m[0] + self.height_m[1] * sway[1]])
        position[:2] = np.cos(angle) * distance, np.sin(angle) * distance
        aim = np.array([self.aim_m * sway[2], self.aim_m * sway[3], 0.2])
        forward = (aim - position) / np.linalg.norm(aim - position)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        roll = self.roll_rad * sway[4]
        right, down = (
            np.cos(roll) * right + np.sin(roll) * down,
            np.cos(roll) * down - np.sin(roll) * right,
        )
        return _Camera(
            position=position,
            rotation=np.stack([right, down, forward]),
            focal_px=self.focal_ratio * image_hw[1],
            image_hw=image_hw,
        )

    def image_speed_px(self, seconds: float, focal_px: float) -> NDArray[np.float64]:
        """(2,) motion of a point at mid-distance in pixels during an exposure of 1/100 s."""
        aim = np.array([[0.0, 0.0, 0.3]])
        before, after = (
            self.camera(seconds + shift, (480, 640)).project(aim)[0][0] for shift in (-0.05, 0.05)
        )
        yaw_px = self.rate_rad_s * focal_px * 0.1
        return np.asarray((after - before + [yaw_px, 0]) / 0.1 * 0.01 * 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Light:
    direction: NDArray[np.float64]
    ambient: float
    diffuse: float
    shadow: float
    penumbra_px: float
    swing: float
    swing_rad_s: float
    phase: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> _Light:
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.35)
        direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation)]
        ambient = rng.uniform(0.4, 0.7)
        return cls(
            direction=np.array([*direction, np.sin(elevation)]),
            ambient=ambient,
            diffuse=1.15 - ambient,
            shadow=rng.uniform(0.35, 0.75),
            penumbra_px=rng.uniform(1.0, 5.0),
            swing=rng.uniform(0.0, 0.25),
            swing_rad_s=rng.uniform(0.2, 1.2),
            phase=rng.uniform(0, 2 * np.pi),
        )

    def gain(self, seconds: float) -> float:
        return float(1 + self.swing * np.sin(self.swing_rad_s * seconds + self.phase))

    def shade(
        self,
        normal: list[FloatArray],
        rays: list[FloatArray],
        sun: NDArray[np.float64],
        shininess: float,
        texels: Image,
    ) -> FloatArray:
        """(h, w, 3) float32 colour: ambient from the sky, Lambert, and a Phong highlight."""
        x, y, z = (np.float32(value) for value in sun)
        facing = normal[0] * x + normal[1] * y + normal[2] * z
        level = np.float32(self.ambient) * (np.float32(0.85) + np.float32(0.15) * normal[2])
        level += np.float32(self.diffuse) * np.maximum(facing, 0)
        colour = texels * level[..., None]
        if shininess:
            along = (rays[0] * normal[0] + rays[1] * normal[1] + rays[2] * normal[2]) * 2
            mirrored = sum(
                (ray - along * part) * side
                for ray, part, side in zip(rays, normal, (x, y, z), strict=True)
            )
            length = np.sqrt(rays[0] ** 2 + rays[1] ** 2 + rays[2] ** 2)
            spot = np.maximum(mirrored / length, 0) ** 16
            colour += (np.float32(255 * shininess) * spot)[..., None]
        return np.asarray(colour, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Optics:
    """What a camera does to the picture: white balance, fall-off, blur, noise, gamma, JPEG."""

    tint: FloatArray
    contrast_lut: Image
    blur_sigma: float
    noise: tuple[float, float]
    jpeg_quality: int

    @classmethod
    def sample(cls, rng: np.random.Generator, image_hw: tuple[int, int]) -> _Optics:
        height, width = image_hw
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
        slant = rng.uniform(-0.15, 0.15, 2)
        falloff = 1 - rng.uniform(0.0, 0.2) * (x * x + y * y) / 2 + slant[0] * x + slant[1] * y
        warmth = rng.uniform(-0.12, 0.12)
        white = np.array([1 - warmth, 1 + rng.uniform(-0.04, 0.04), 1 + warmth])
        exposure = rng.uniform(0.75, 1.2)
        gamma = rng.uniform(0.8, 1.25)
        levels = np.linspace(0, 1, 256) ** gamma
        return cls(
            tint=(falloff[..., None] * white * exposure).astype(np.float32),
            contrast_lut=np.round(levels * 255).astype(np.uint8),
            blur_sigma=rng.uniform(0.45, 0.8),
            noise=(rng.uniform(0.5, 4.0), rng.uniform(0.1, 0.6)),
            jpeg_quality=int(rng.integers(60, 95)) if rng.random() < 0.35 else 0,
        )

    def expose(
        self,
        canvas: FloatArray,
        gain: float,
        motion_px: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Image:
        """(H, W, 3) uint8 picture of a linear (H, W, 3) float32 canvas, which is overwritten."""
        cv2.multiply(canvas, self.tint, canvas, gain)
        canvas = cv2.GaussianBlur(canvas, (3, 3), self.blur_sigma)
        length = float(np.hypot(*motion_px))
        if length > 1.2:
            canvas = cv2.filter2D(canvas, -1, _streak(motion_px * min(1, 4 / length)))
        pool = _noise_pool()
        height, width = canvas.shape[:2]
        top, left = rng.integers(0, pool.shape[0] - height), rng.integers(0, pool.shape[1] - width)
        sigma = cv2.sqrt(np.maximum(canvas, 0)) * np.float32(self.noise[1])
        sigma += np.float32(self.noise[0])
        sigma *= pool[top : top + height, left : left + width]
        image: Image = cv2.LUT(
            cv2.convertScaleAbs(np.maximum(canvas + sigma, 0)), self.contrast_lut
        )
        if self.jpeg_quality:
            _, coded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
            image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
        return image


def _streak(motion_px: NDArray[np.float64]) -> FloatArray:
    kernel = np.zeros((7, 7), np.float32)
    ends = np.round((3 + np.stack([-motion_px, motion_px]) / 2) * 16).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_8, 4)
    return np.asarray(kernel / kernel.sum(), np.float32)


@lru_cache(maxsize=1)
def _noise_pool() -> FloatArray:
    """Unit normal noise, of which each frame takes a window."""
    rng = np.random.default_rng(7)
    return rng.standard_normal((1300, 1700, 3), dtype=np.float32)


# Textures

_TEXELS_PER_METRE = 200.0
_GROUND_HW = (1024, 1024)
_PANORAMA_HW = (256, 2048)


def _noise(
    rng: np.random.Generator, hw: tuple[int, int], cell: tuple[int, int], octaves: int = 3
) -> FloatArray:
    """(h, w) float32 smooth noise of mean 0 and about unit spread; `cell` pixels a bump."""
    total = np.zeros(hw, np.float32)
    for octave in range(octaves):
        grid = (
            max(2, hw[0] * 2**octave // cell[0]),
            max(2, hw[1] * 2**octave // cell[1]),
        )
        grid = (min(grid[0], hw[0]), min(grid[1], hw[1]))
        coarse = rng.standard_normal(grid, dtype=np.float32)
        total += cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_LINEAR) * 0.6**octave
    return total


def _colour(
    rng: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> FloatArray:
    """(3,) float32 BGR of 0 to 255; hue in degrees."""
    hsv = [rng.uniform(*hue) % 360, rng.uniform(*saturation), rng.uniform(*value)]
    pixel = cv2.cvtColor(np.array([[hsv]], np.float32), cv2.COLOR_HSV2BGR)
    return np.asarray(pixel[0, 0] * 255, np.float32)


def _to_image(texture: FloatArray) -> Image:
    return np.asarray(np.clip(texture, 0, 255), np.uint8)


def _mirrored(texture: FloatArray) -> Image:
    """The texture and its mirror images, which wrap around without a seam."""
    image = _to_image(texture)
    return np.asarray(
        cv2.copyMakeBorder(image, 0, len(image), 0, image.shape[1], cv2.BORDER_REFLECT)
    )


def _ground_texture(rng: np.random.Generator) -> Image:
    """(2048, 2048, 3) uint8 of one of eight kinds of floor."""
    height, width = hw = _GROUND_HW
    y, x = np.mgrid[:height, :width].astype(np.float32)
    kind = rng.choice(
        ['asphalt', 'concrete', 'grass', 'tiles', 'planks', 'gravel', 'checker', 'lines']
    )
    grain = rng.standard_normal(hw, dtype=np.float32)[..., None]
    patches = _noise(rng, hw, (256, 256))[..., None]
    if kind == 'grass':
        base = _colour(rng, (60, 130), (0.25, 0.6), (0.25, 0.55))
        blades = _noise(rng, hw, (24, 6), 2)[..., None]
        return _mirrored(base * (1 + 0.14 * blades + 0.1 * patches + 0.08 * grain))
    base = _colour(rng, (0, 360), (0.0, 0.25), (0.3, 0.75))
    if kind == 'gravel':
        stones = _noise(rng, hw, (12, 12), 2)[..., None]
        return _mirrored(base * (1 + 0.17 * stones + 0.06 * patches))
    texture = base * (1 + 0.07 * patches + (0.1 if kind == 'asphalt' else 0.03) * grain)
    side = int(rng.integers(60, 180))
    if kind == 'tiles':
        shade = rng.normal(1, rng.uniform(0.02, 0.12), (height // side + 1, width // side + 1, 1))
        texture *= shade[(y // side).astype(int), (x // side).astype(int)].astype(np.float32)
        joint = (y % side < 5) | (x % side < 5)
        texture[joint] *= rng.uniform(0.55, 1.3)
    elif kind == 'checker':
        other = (y // side + x // side) % 2 == 1
        texture[other] *= _colour(rng, (0, 360), (0, 0.3), (0.6, 1)) / 255 * 0.9
    elif kind == 'planks':
        wood = _colour(rng, (18, 38), (0.25, 0.6), (0.4, 0.75))
        streaks = _noise(rng, hw, (8, 300), 2)[..., None]
        shade = rng.normal(1, 0.08, (height // side + 1, 1)).astype(np.float32)
        texture = wood * (1 + 0.07 * streaks) * shade[(y // side).astype(int)]
        texture[y % side < 4] *= 0.6
    elif kind == 'lines':
        paint = _colour(rng, (40, 60), (0.0, 0.8), (0.75, 0.95))
        for _ in range(int(rng.integers(3, 8))):
            ends = rng.integers(-200, 1224, (2, 2))
            mask = cv2.line(
                np.zeros(hw, np.uint8),
                ends[0].tolist(),
                ends[1].tolist(),
                1,
                int(rng.integers(8, 30)),
            ).astype(bool)
            texture[mask] = paint * (1 + 0.08 * grain[mask])
    return _mirrored(texture)


def _panorama(rng: np.random.Generator) -> Image:
    """(512, 4096, 3) uint8 of what is beyond the floor; the horizon is row 255."""
    height, width = hw = _PANORAMA_HW
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    if rng.random() < 0.4:  # a wall with panels
        base = _colour(rng, (0, 360), (0, 0.35), (0.4, 0.85))
        texture = base * (1 + 0.06 * _noise(rng, hw, (128, 128))[..., None])
        step = int(rng.integers(60, 240))
        shade = rng.normal(1, 0.08, (1, width // step + 1, 1)).astype(np.float32)
        texture = texture * shade[:, np.arange(width) // step]
        texture[:, np.arange(width) % step < 3] *= 0.7
        texture[-int(rng.integers(6, 20)) :] *= 0.6
        return _mirrored(texture)
    top = _colour(rng, (195, 225), (0.1, 0.6), (0.6, 0.95))
    low = _colour(rng, (190, 240), (0.0, 0.15), (0.7, 0.95))
    clouds = np.clip(_noise(rng, hw, (64, 200), 4), 0, 1.5)[..., None] * rng.uniform(0, 40)
    texture = low + (top - low) * up + clouds
    for x in range(0, width, 24):  # a skyline of houses and trees
        if rng.random() < 0.55:
            tall, broad = int(rng.integers(6, 70)), int(rng.integers(16, 110))
            colour = _colour(rng, (20, 140), (0.05, 0.45), (0.25, 0.6))
            if rng.random() < 0.5:
                cv2.rectangle(
                    texture, (x, height - tall), (x + broad, height), colour.tolist(), -1
                )
            else:
                cv2.ellipse(
                    texture, (x, height), (broad // 2, tall), 0, 0, 360, colour.tolist(), -1
                )
    texture += 4 * _noise(rng, hw, (16, 16), 2)[..., None]
    return _mirrored(texture)


# Objects


def _place_objects(rng: np.random.Generator, count: int) -> tuple[_Object, ...]:
    """Objects on a disc of two metres, none inside another, some of them moving."""
    objects: list[_Object] = []
    for _ in range(count * 30):
        if len(objects) == count:
            break
        # Every class is in every scene, the rest by chance.
        class_id = len(objects) if len(objects) < len(CLASS_NAMES) else int(rng.integers(5))
        solids = _BUILDERS[class_id](rng)
        radius = float(
            max(np.hypot(*s.half_xy) if s.profile is None else s.half_xy[0] for s in solids)
        )
        distance, angle = 1.95 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        position = np.array([np.cos(angle), np.sin(angle)]) * distance
        moves = CLASS_NAMES[class_id] == 'ball' or rng.random() < 0.15
        heading = rng.uniform(0, 2 * np.pi)
        swing = np.array([np.cos(heading), np.sin(heading)]) * (
            rng.uniform(0.2, 0.8) if moves else 0
        )
        if any(_gap(position, swing, other) < radius + other.radius for other in objects):
            continue
        objects.append(
            _Object(
                instance_id=len(objects) + 1,
                class_id=class_id,
                solids=solids,
                radius=radius,
                position_xy=position,
                yaw=rng.uniform(0, 2 * np.pi),
                swing_xy=swing,
                swing_rad_s=rng.uniform(0.3, 0.9),
                phase=rng.uniform(0, 2 * np.pi),
            )
        )
    return tuple(objects)


def _gap(position: NDArray[np.float64], swing: NDArray[np.float64], other: _Object) -> float:
    """Smallest distance between the centre lines two objects swing along, sampled."""
    steps = np.linspace(-1, 1, 9)[:, None]
    mine, theirs = position + steps * swing, other.position_xy + steps * other.swing_xy
    return float(np.linalg.norm(mine[:, None] - theirs[None], axis=2).min())


def _plain(rng: np.random.Generator, colour: FloatArray, wear: float = 0.05) -> FloatArray:
    return np.asarray(colour * (1 + wear * _noise(rng, (128, 128), (32, 32))[..., None]))


def _any_colour(rng: np.random.Generator) -> FloatArray:
    return _colour(rng, (0, 360), (0.3, 0.95), (0.35, 0.95))


def _cone(rng: np.random.Generator) -> tuple[_Solid, ...]:
    height, foot = rng.uniform(0.45, 0.85), rng.uniform(0.15, 0.22)
    tip = foot * rng.uniform(0.12, 0.25)
    body = _colour(rng, (5, 25), (0.8, 1), (0.8, 1)) if rng.random() < 0.6 else _any_colour(rng)
    texture = _plain(rng, body)
    band = np.array([235, 235, 235], np.float32) * (rng.random() < 0.8)
    top, width = int(rng.integers(8, 20)), int(rng.integers(8, 16))
    texture[top : top + width] = band
    if rng.random() < 0.6:
        texture[top + 2 * width - 2 : top + 3 * width - 4] = band
    texture[64:] *= 0.5
    base = _plain(rng, body if rng.random() < 0.5 else np.full(3, 40, np.float32))
    k = (foot - tip) / height
    plate = foot * rng.uniform(1.15, 1.35)
    return (
        _Solid(texture=_to_image(base), half_xy=(plate, plate), height=0.04),
        _Solid(
            texture=_to_image(texture),
            half_xy=(foot, foot),
            height=height,
            bottom=0.04,
            profile=(foot * foot, -2 * foot * k, k * k),
            shininess=rng.uniform(0, 0.2),
        ),
    )


def _ball(rng: np.random.Generator) -> tuple[_Solid, ...]:
    radius = rng.uniform(0.16, 0.32)
    texture = _plain(rng, _any_colour(rng), 0.03)
    columns, rows = np.arange(128)[None, :], np.arange(128)[:, None]
    kind = rng.choice(['plain', 'segments', 'belt', 'spots'])
    if kind == 'segments':
        slices = 128 // int(rng.choice([4, 8]))
        texture[:, (columns[0] // slices) % 2 == 0] = _any_colour(rng)
    elif kind == 'belt':
        texture[(rows[:, 0] > 50) & (rows[:, 0] < 78)] = _any_colour(rng)
    elif kind == 'spots':
        dark = _any_colour(rng) * 0.3
        for row in (24, 64, 104):
            for column in range(8 + row % 16, 128, 32 if row == 64 else 42):
                axes = (6 if row == 64 else 10, 7)
                cv2.ellipse(texture, (column, row), axes, 0, 0, 360, dark.tolist(), -1)
    return (
        _Solid(
            texture=_to_image(texture),
            half_xy=(radius, radius),
            height=2 * radius,
            profile=(0.0, 2 * radius, -1.0),
            shininess=rng.uniform(0.1, 0.7),
        ),
    )


def _box(rng: np.random.Generator) -> tuple[_Solid, ...]:
    kind = rng.choice(['carton', 'crate', 'plastic'])
    if kind == 'carton':
        texture = _plain(rng, _colour(rng, (22, 36), (0.3, 0.55), (0.55, 0.8)))
        tape = _colour(rng, (25, 40), (0.1, 0.4), (0.6, 0.9))
        texture[:, 56:72] = tape
        left, top = rng.integers(4, 90), rng.integers(6, 36)
        texture[top : top + 18, left : left + 30] = 225
        texture[top + 4 : top + 14 : 3, left + 4 : left + 24] = 60
    elif kind == 'crate':
        texture = _plain(rng, _colour(rng, (20, 36), (0.35, 0.65), (0.4, 0.75)), 0.08)
        frame = texture * 0.75
        texture[np.arange(128) % 16 < 2] *= 0.5
        for start in (0, 64):
            texture[start : start + 8], texture[start + 56 : start + 64] = frame[:8], frame[:8]
        texture[:, :10], texture[:, -10:] = frame[:, :10], frame[:, -10:]
    else:
        texture = _plain(rng, _any_colour(rng), 0.02)
        texture[6:12] *= 0.7
        texture[22:46, 40:88] *= rng.uniform(0.5, 1.3)
        texture[70:122, 8:120] *= 0.75
    return (
        _Solid(
            texture=_to_image(texture),
            half_xy=(rng.uniform(0.18, 0.36), rng.uniform(0.18, 0.36)),
            height=rng.uniform(0.32, 0.7),
        ),
    )


def _barrel(rng: np.random.Generator) -> tuple[_Solid, ...]:
    radius, height = rng.uniform(0.2, 0.3), rng.uniform(0.6, 0.95)
    wooden = rng.random() < 0.35
    if wooden:
        texture = _plain(rng, _colour(rng, (15, 32), (0.4, 0.7), (0.35, 0.65)))
        texture[:, np.arange(128) % 8 == 0] *= 0.6
        hoops = [4, 18, 42, 56]
        bulge = rng.uniform(0.05, 0.09)
    else:
        texture = _plain(rng, _any_colour(rng), 0.04)
        if rng.random() < 0.5:
            texture[24:40] = _any_colour(rng)
        hoops = [0, 20, 40, 59]
        bulge = 0.0
    for row in hoops:
        texture[row : row + 4] *= 0.6 if wooden else 0.7
        texture[row + 1 : row + 2] *= 1.3
    texture[64:] *= 0.85
    texture[64 + 54 :] *= 0.6
    cv2.circle(texture, (100, 100), 6, (30.0, 30.0, 30.0), -1)
    swell = bulge / (height / 2) ** 2
    return (
        _Solid(
            texture=_to_image(texture),
            half_xy=(radius, radius),
            height=height,
            profile=(radius**2 - bulge * 0.25, swell * 0.25 * height, -swell * 0.25),
            shininess=0.0 if wooden else rng.uniform(0.1, 0.4),
        ),
    )


def _pallet(rng: np.random.Generator) -> tuple[_Solid, ...]:
    wood = _colour(rng, (22, 40), (0.15, 0.5), (0.55, 0.85))
    if rng.random() < 0.2:
        wood = _colour(rng, (200, 230), (0.5, 0.8), (0.4, 0.8))
    texture = _plain(rng, wood, 0.07)
    layers = int(rng.integers(1, 3))
    columns = np.arange(128)
    rows = np.arange(64)
    for layer in range(layers):  # decks of boards, and dark openings between three blocks
        inside = (rows * layers // 64 == layer) & ((rows * layers % 64) > 16)
        inside &= (rows * layers % 64) < 54
        openings = (np.abs(columns - 38) < 21) | (np.abs(columns - 90) < 21)
        texture[:64][np.ix_(inside, openings)] *= 0.22
    texture[64:][np.arange(64) % 9 < 2] *= 0.25
    scale = rng.uniform(0.75, 1.0)
    return (
        _Solid(
            texture=_to_image(texture),
            half_xy=(0.6 * scale, 0.4 * scale),
            height=0.15 * scale * layers + 0.02,
        ),
    )


_BUILDERS = (_cone, _ball, _box, _barrel, _pallet)
