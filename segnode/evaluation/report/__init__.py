# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The page of a run, for people."""

from segnode.evaluation.report.page import write_report

__all__ = ['write_report']
