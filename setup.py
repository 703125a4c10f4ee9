# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The ament_python package: all metadata lives here (and, for rosdep, in package.xml)."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

COMMANDS = (
    'node',
    'predict',
    'evaluate',
    'convert',
    'demo',
    'benchmark',
    'soak',
    'sweep',
    'export',
    'describe',
    'doctor',
    'models',
    'fetch',
)


def files(pattern: str) -> list[str]:
    """Paths of the checkout, relative to it, as setuptools wants them."""
    return sorted(str(path) for path in Path().glob(pattern) if path.is_file())


setup(
    name='segnode',
    version='0.1.0',
    description='Instance masks for robots: Mask R-CNN on camera topics of ROS 2, and offline',
    author='The segnode authors',
    author_email='segnode@users.noreply.github.com',
    maintainer='The segnode authors',
    maintainer_email='segnode@users.noreply.github.com',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['segnode', 'segnode.*']),
    package_data={'': ['py.typed', '*.c', '*.safetensors', '*.yaml']},
    ext_modules=[
        # A plain library without Python's interface. Where no compiler is at hand the package
        # installs without it, and `segnode doctor` says so.
        Extension(
            'segnode.kernels._cpu',
            ['segnode/kernels/cpu.c'],
            extra_compile_args=['-O3', '-std=gnu11', '-fopenmp', '-Wno-psabi'],
            extra_link_args=['-fopenmp'],
            libraries=['m'],
            optional=True,
        )
    ],
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/segnode']),
        ('share/segnode', ['package.xml']),
        ('share/segnode/launch', files('launch/*.launch.py')),
        ('share/segnode/config', files('config/*')),
    ],
    install_requires=[
        'faster-coco-eval',
        'lz4',
        'mcap',
        'numpy',
        'opencv-python-headless',
        'pillow',
        'pycocotools',
        'pyyaml',
        'rosbags',
        'safetensors',
        'setuptools',
        'torch',
        'torchvision',
        'tqdm',
        'typing-extensions',
        'zstandard',
    ],
    extras_require={
        # Names of layers are the converters' own: within these bounds they are known.
        'export': [
            'nncf>=3.4,<4',
            'onnx>=1.23,<2',
            'onnxscript>=0.7.2,<0.8',
            'openvino>=2026.4,<2027',
        ],
        'nvml': ['nvidia-ml-py'],
        'onnxruntime': ['onnxruntime>=1.23,<2'],
        'openvino': ['openvino>=2026.4,<2027'],
        'test': ['pytest'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [f'{command} = segnode.__main__:{command}' for command in COMMANDS]
    },
)
