"""From measurements to the table: medians over runs, with their spread, by method, file and temperature."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from eagle_decoding.bench.measure import CHECK, Key, Record
from eagle_decoding.bench.methods import BASELINE, PLAIN

MEAN = "mean"


@dataclass
class Ratio:
    """A quotient of speeds: the median over runs, and the lowest and the highest of them."""

    median: float
    low: float
    high: float


@dataclass
class Row:
    """A method on a file at a temperature; the file MEAN is the arithmetic mean of the files, run by run.

    tokens_per_second: median over runs
    vs_transformers:   speed against transformers' generate in the same run
    vs_plain:          speed against plain decoding here in the same run
    tokens_per_round:  accepted drafts + 1, over all rounds; 0 where nobody counts
    same_text:         share of the texts that are those of plain decoding with the same seed
    identical:         in fp32, share of greedy texts that are those of transformers' generate; None where unchecked
    """

    temperature: float
    method: str
    file: str
    tokens_per_second: float
    vs_transformers: Ratio
    vs_plain: Ratio
    tokens_per_round: float
    same_text: float
    identical: float | None = None


def complete(records: Mapping[Key, Record], keys: Iterable[Key]) -> list[Record]:
    """What can be compared of an unfinished benchmark: whole runs, and while there is none, of the first one the
    questions that every method answered.

    keys: everything that was to be measured
    """
    keys = list(keys)
    unfinished = {key.run for key in keys if key not in records}
    broken = {replace(key, method="") for key in keys if key not in records}
    return [
        records[key]
        for key in keys
        if key.run not in unfinished or (key.run <= 0 and replace(key, method="") not in broken)
    ]


def summarise(records: Iterable[Record]) -> list[Row]:
    """Rows in the order of their methods' first measurement, each method's files and then its mean.

    Every method must have the same questions as the baselines: `complete` sees to that.
    """
    by_key = {record.key: record for record in records}
    groups: dict[tuple[float, str, str], list[Record]] = defaultdict(list)
    for key, record in by_key.items():
        if key.run != CHECK:
            groups[key.temperature, key.method, key.file].append(record)
    rows = []
    for temperature, method in dict.fromkeys((t, m) for t, m, _ in groups):
        files = [f for t, m, f in groups if (t, m) == (temperature, method)]
        speeds = {f: speed_by_run(groups[temperature, method, f]) for f in files}
        against = {
            base: {f: quotients(speeds[f], speed_by_run(groups[temperature, base, f])) for f in files}
            for base in (BASELINE, PLAIN)
        }
        for file in files:
            measured = groups[temperature, method, file]
            rows.append(
                Row(
                    temperature,
                    method,
                    file,
                    statistics.median(speeds[file]),
                    ratio(against[BASELINE][file]),
                    ratio(against[PLAIN][file]),
                    tokens_per_round(measured),
                    same_text(measured, by_key),
                    identical(by_key, method, file),
                )
            )
        means = rows[-len(files) :]
        rows.append(
            Row(
                temperature,
                method,
                MEAN,
                statistics.mean(row.tokens_per_second for row in means),
                ratio([statistics.mean(run) for run in zip(*against[BASELINE].values(), strict=True)]),
                ratio([statistics.mean(run) for run in zip(*against[PLAIN].values(), strict=True)]),
                statistics.mean(row.tokens_per_round for row in means),
                statistics.mean(row.same_text for row in means),
                mean_of(row.identical for row in means),
            )
        )
    return rows


def speed_by_run(records: list[Record]) -> list[float]:
    """Tokens per second of each run, over all its questions."""
    tokens: dict[int, int] = defaultdict(int)
    seconds: dict[int, float] = defaultdict(float)
    for record in records:
        tokens[record.key.run] += record.tokens
        seconds[record.key.run] += record.seconds
    return [tokens[run] / max(seconds[run], 1e-9) for run in sorted(tokens)]


def quotients(ours: list[float], base: list[float]) -> list[float]:
    return [a / b if b else 0.0 for a, b in zip(ours, base, strict=True)]


def ratio(values: list[float]) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values))


def mean_of(shares: Iterable[float | None]) -> float | None:
    """The mean of those that are known, None where none is."""
    known = [share for share in shares if share is not None]
    return statistics.mean(known) if known else None


def identical(by_key: Mapping[Key, Record], method: str, file: str) -> float | None:
    """Share of a method's greedy texts in fp32 that are those of transformers' generate; None where unchecked."""
    return mean_of(
        float(record.text == by_key[replace(key, method=BASELINE)].text)
        for key, record in by_key.items()
        if (key.run, key.method, key.file) == (CHECK, method, file)
    )


def tokens_per_round(records: list[Record]) -> float:
    rounds, accepted = sum(r.rounds for r in records), sum(r.accepted for r in records)
    return 1 + accepted / rounds if rounds else 0.0


def same_text(records: list[Record], by_key: dict[Key, Record]) -> float:
    """Share of texts equal to plain decoding's; transformers samples with other noise, so only greedily can it be."""
    pairs = []
    for record in records:
        key = record.key
        plain = by_key[Key(key.run, key.temperature, key.file, key.question, PLAIN)]
        pairs.append(record.text == plain.text)
    return sum(pairs) / len(pairs)
