"""Images are built once a session; each test gets containers of them that are gone afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from containers import Bind, Container, Image
from harness import contents
from images import Builder, building_place

HERE = Path(__file__).parent
MakeContainer = Callable[..., Container]


@dataclass(frozen=True)
class Images:
    """The project's own image, and one of a training on top of it."""

    ours: Image
    training: Image


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    with building_place() as place:
        yield place


@pytest.fixture(scope="session")
def images(builder: Builder) -> Images:
    project = HERE.parent.parent
    ours = builder.build(project / "Dockerfile", project)
    training = builder.build(HERE / "Dockerfile", HERE, {"criu-train": ours})
    builder.forget_all_but(ours, training)
    return Images(ours, training)


@pytest.fixture
def container(builder: Builder, images: Images, nothing_stays_behind: None) -> Iterator[MakeContainer]:
    """Makes containers of the training's image; ``work`` is a directory to see as /work and to run in."""
    with contextlib.ExitStack() as stack:

        def make(work: Path | None = None, **settings: object) -> Container:
            if work is not None:
                work.mkdir(parents=True, exist_ok=True)
                settings |= {"binds": [Bind(work, "/work")], "workdir": "/work"}
            made = Container(images.training, builder.scratch, **settings)  # type: ignore[arg-type]
            stack.callback(made.close)
            return made

        yield make


@dataclass(frozen=True)
class Left:
    """What a training left in its working directory and on its output."""

    contents: dict[str, str]
    output: str


@pytest.fixture(scope="session")
def left_alone(builder: Builder, images: Images) -> Callable[..., Left]:
    """What a command leaves in a container of its own, without us; each command is run once a session."""
    known: dict[tuple[str, ...], Left] = {}

    def reference(command: tuple[str, ...]) -> Left:
        if command not in known:
            work = builder.scratch / f"alone-{len(known)}"
            work.mkdir()
            alone = Container(images.training, builder.scratch, binds=[Bind(work, "/work")], workdir="/work")
            try:
                code, said = alone.run(*command, entrypoint=())
            finally:
                alone.close()
            assert code == 0, said
            known[command] = Left(contents(work), said)
        return known[command]

    return reference
