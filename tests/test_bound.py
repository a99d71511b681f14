"""The least time that a card could take for an experiment."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dialsum.config.load import load_config
from dialsum.data.encode import Counts, EncodedSplit, TokenIds
from dialsum.experiment.bound import CARD, plan_bound
from dialsum.machine.flops import count_flops, count_writing
from dialsum.models.checkpoint import measure_attention, measure_products
from dialsum.models.families import get_family
from dialsum.paths import PROJECT_ROOT

PEAK, BANDWIDTH = 71e12, 936e9  # of an RTX 3090, as NVIDIA states them
CONFIG = PROJECT_ROOT / "config" / "experiments" / "01_mt5_xlsum_optimized_v2.yaml"


def ids(*lengths: int) -> TokenIds:
    """Return rows of so many tokens."""
    return [np.full(length, 5, np.int32) for length in lengths]


def test_a_bound_is_the_arithmetic_of_training_and_the_reading_of_weights_while_writing() -> None:
    values = ["training.max_steps=9", "training.eval_steps=4", "evaluation.training_max_rows=1"]
    values += ["training.per_device_eval_batch_size=1", "evaluation.training_num_beams=2"]
    config = load_config(CONFIG, overrides=values).config
    own = json.loads((PROJECT_ROOT / "config" / "architectures" / "mt5_base.json").read_text())
    own, family = own["config"], get_family("mt5")
    encoded = {
        "train": EncodedSplit(ids(*[100] * 48), ids(*[20] * 48), Counts()),
        "dev": EncodedSplit(ids(200, 300), ids(30, 10), Counts()),
        "test": EncodedSplit(ids(400), None, Counts()),
    }
    found = plan_bound(config, own=own, encoded=encoded, card=CARD)
    assert found is not None
    shape = measure_attention(own, family=family)
    products = measure_products(own, family=family, learns=False)
    one = count_flops(products, attention=shape, inputs=[100], targets=[20])
    assert found.training == pytest.approx(9 * 24 * one / PEAK)  # 6 x 4 rows a step

    def write(rows: list[tuple[int, int]], *, beams: int) -> float:
        flops, moved = count_writing(
            products, attention=shape, rows=rows, batch=1, beams=beams, weight_bytes=0.5
        )
        assert moved / BANDWIDTH > flops / PEAK  # one row at a time: the memory's traffic
        return moved / BANDWIDTH

    loss = count_flops(products, attention=shape, inputs=[200], targets=[30], backward=False)
    # After the steps 4, 8 and 9.
    assert found.evaluation == pytest.approx(3 * (loss / PEAK + write([(200, 30)], beams=2)))
    # A test row has no summary: one of the middle length of dev's is written.
    rows = [(200, 30), (300, 10)], [(400, 20)]
    assert found.writing == pytest.approx(sum(write(one, beams=4) for one in rows))
    assert plan_bound(config, own=own, encoded=encoded, card="a card of next year") is None
