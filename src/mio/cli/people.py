"""`mio eval form` and `mio eval people`: a page on which people rank answers, and what their sheets say together."""

from __future__ import annotations

from dataclasses import asdict

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.evals.ranking import read_ranks, verdict, write_form


def form(args: Arguments, console: Console) -> int:
    key = write_form(args.files, args.path, args.limit, args.seed)
    beside = args.path.with_suffix(".key.json")
    console.data({"page": str(args.path), "key": str(beside), "form": key.form, "items": len(key.orders)})
    console.text(str(args.path))
    console.note(f"{len(key.orders)} items. Whose answers stand where is in {beside}: not for annotators.")
    return 0


def people(args: Arguments, console: Console) -> int:
    found = verdict(*read_ranks(args.path, args.files))
    console.data(asdict(found))
    for name, score in found.ranks.items():
        console.text(f"{name}  average rank {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]  n={score.n}")
        for other, share in found.wins[name].items():
            console.text(f"  ranked above {other}: {share:.1%}")
    if found.agreement is not None:
        tau = "" if found.tau is None else f", Kendall's tau {found.tau:.3f}"
        console.text(f"{found.annotators} annotators agree on {found.agreement:.1%} of pairs of answers{tau}")
    return 0
