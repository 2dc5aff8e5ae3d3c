"""Which weights a training hands back: those of the fine-tuned head's best epoch, averaged where that is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from .test_fine_tune_program import here, history, sources, train, weights_of

__all__ = ["here", "sources"]


@pytest.mark.usefixtures("here")
def test_the_fine_tuned_head_decides_which_epoch_is_the_best() -> None:
    """It learns from epoch to epoch, while the replay head, with next to no data, forgets."""
    results = train(max_epochs=3, n_replay=2)
    fine_tuned, replay = ([each["loss"] for each in history(head)[1:]] for head in ("Default", "pt_head"))
    assert (np.argmin(fine_tuned), np.argmin(replay)) == (2, 0)
    assert results["best_epoch"] == 2


@pytest.mark.usefixtures("here")
def test_the_model_has_the_average_of_the_weights_of_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its errors are those of the history, and each weight is what the definition of the average gives."""
    module = import_module("mace.tools.train")  # mace.tools has a function of the same name
    train(max_epochs=0)
    average = weights_of("model.model")
    steps: list[dict[str, np.ndarray[Any, Any]]] = []
    original = module.take_step

    def recorded(**arguments: Any) -> Any:
        answer = original(**arguments)
        steps.append({name: value.detach().numpy().copy() for name, value in arguments["model"].named_parameters()})
        return answer

    monkeypatch.setattr(module, "take_step", recorded)
    results = train(max_epochs=1, ema=True, ema_decay=0.5)
    for number, weights in enumerate(steps, start=1):
        # The first steps of an average count more, as in TensorFlow's: (1 + n) / (10 + n) of the old is kept.
        kept = min(0.5, (1 + number) / (10 + number))
        average = {name: kept * average[name] + (1 - kept) * weights[name] for name in weights}
    written = weights_of("model.model")
    for name, expected in average.items():
        np.testing.assert_allclose(written[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)
    assert any(not np.allclose(written[name], steps[-1][name], rtol=1e-4) for name in average)
    found, told = results["errors"]["Default"]["valid"], history()[-1]
    assert found["force_mae_mev_per_ang"] == pytest.approx(told["force_mae_mev_per_ang"], rel=1e-6)
