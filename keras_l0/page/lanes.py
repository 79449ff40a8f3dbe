"""Where the boxes of a graph go: each branch down a lane of its own."""

from __future__ import annotations

from collections.abc import Sequence


class Lanes:
    """A row and a lane for each node of a graph.

    A node goes below all that it reads. Of those that read a node, the first one is its
    heir, and continues its lane; others, such as shortcuts, open lanes beside it.

    Args:
        sources: For each node the numbers of those it reads, which come before it.

    Attributes:
        depth: The row of each node, from 0.
        lane: Its lane, from 0.
        heir: For each node that is read, which one continues its lane.

    Example:
        >>> from keras_l0.page.lanes import Lanes
        >>> lanes = Lanes([[], [0], [0], [1, 2]])
        >>> lanes.depth, lanes.lane
        ([0, 1, 1, 2], [0, 0, 1, 0])
    """

    def __init__(self, sources: Sequence[Sequence[int]]) -> None:
        self.depth: list[int] = []
        for reads in sources:
            self.depth.append(1 + max((self.depth[i] for i in reads), default=-1))
        self.heir: dict[int, int] = {}
        for number, reads in enumerate(sources):
            for source in reads:
                self.heir.setdefault(source, number)
        # Until which row the last node of a lane, and the line below it, take it up.
        busy: list[int] = []
        self.lane = [0] * len(self.depth)
        for number in sorted(range(len(self.depth)), key=lambda i: (self.depth[i], i)):
            depth = self.depth[number]
            inherited = sorted(
                self.lane[i] for i in sources[number] if self.heir[i] == number
            )
            free = [i for i, until in enumerate(busy) if until < depth]
            # The line of a lane ends at its heir.
            lane = (inherited or free or [len(busy)])[0]
            if lane == len(busy):
                busy.append(0)
            self.lane[number] = lane
            for other in inherited[1:]:
                busy[other] = depth - 1
            heir = self.heir.get(number)
            busy[lane] = depth if heir is None else self.depth[heir]
