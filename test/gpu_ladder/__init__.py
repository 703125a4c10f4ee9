# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A ladder on a GPU: plain operators, Triton, graphs, both; each rung checked, then timed.

Run as a script (``make gpu``), it needs no installed segnode, ROS, pytest or pycocotools. In the
order of a run:

``options``, ``limits``: what is asked for, what counts as right, how long it may take
``rungs``, ``engines``: the four ways to run, and all that is touched inside of segnode
``reference``: what float32 on the CPU answers
``checks``: what is done on a rung, in order; it is in ``operators``, ``answers``, ``precision``,
``average_precision``, ``edges``, ``poison`` and ``timing``, and tells by ``outcome``
``processes``: one for every rung; ``afterwards``: pytest and the benchmark
``record``, ``report``: the JSON file, and what is said at the end

Shapes: N images, D detections, G annotated instances, H and W of an image.
"""
