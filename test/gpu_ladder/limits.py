# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What counts as right, how much is looked at, and how long it may take."""

from __future__ import annotations

# What the answers of two devices may differ by in float32; pairs further apart are others.
EXACT_PX, EXACT_SCORE, EXACT_LABELS = 0.05, 1e-3, 0.999
# The same where scores are so low that rounding picks among them.
LOW_SCORE, LOW_MATCHED = 0.05, 0.95
# What half precision may: of average precision, and of a detection's partner.
AP_APART, HALF_MATCHED = 0.01, 0.95
HALF_PX, HALF_SCORE, HALF_IOU = 0.5, 0.01, 0.98
PLANTED_LABELS = 0.99
# Mean and greatest deviation of a stage, in standard deviations of what float32 gives.
DEVIATION = {'fp32': (1e-4, 2e-3), 'fp16': (5e-3, 0.05), 'bf16': (3e-2, 0.3)}
# The same of pooled features, which are rounded once.
POOLED = {'fp32': (1e-5, 1e-3), 'fp16': (1e-3, 0.01), 'bf16': (8e-3, 0.08)}
# A grey value is 1 / std; half precision rounds values of up to some 5.
PIXELS = {'fp32': 1e-4, 'fp16': 5e-3, 'bf16': 2e-2}

HALF = ('fp16', 'bf16')
TIMED = 'fp16'
SCENE_HW = (480, 640)
# From few to as many instances as there can be, so that every capacity of the mask head runs.
THRESHOLDS = (0.9, 0.5, 0.05, 0.01, 0.0)
JUDGED_AT = 0.5
# Scenes whose answers are compared one by one.
COMPARED = 4
# Frames over which memory has to stay as it is; planted detections, timed frames, those before.
FRAMES = 300
DETECTIONS = 20
ROUNDS, WARM_UP = 200, 20
# Bytes and number of the blocks that leave NaN behind: 250 MB of all sizes that a frame asks for.
POISON = ((2**9, 64), (2**12, 64), (2**16, 64), (2**19, 32), (2**21, 16), (2**23, 8), (2**25, 4))

# Seconds without a word from a rung's process outside of a check, in one, and for the whole rung.
START_S, CHECK_S, RUNG_S = 120.0, 90.0, 300.0
# Seconds that the tests may take, and a case of the benchmark; and what is worth beginning.
TESTS_S, BENCHMARK_S = 300.0, 240.0
LEAST_TESTS_S, LEAST_BENCHMARK_S = 30.0, 45.0
