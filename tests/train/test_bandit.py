"""What DRPO beside GRPO rests on: intervals, the questions, steps and scores of the bandit, and the files of runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.drpo_vs_grpo import bandit, results
from benchmarks.drpo_vs_grpo.bandit import Cell, Policies, Questions, Setting, train
from benchmarks.drpo_vs_grpo.grid import CORE, SETTINGS, cells_of, pieces, run_grid
from benchmarks.drpo_vs_grpo.intervals import estimate, holm
from benchmarks.drpo_vs_grpo.methods import METHODS, BinsState, bins_advantages
from benchmarks.drpo_vs_grpo.report import bandit_tables, latest_sizes, replaced, tiny_tables, write_report
from benchmarks.drpo_vs_grpo.tables import difference, mean_accuracy
from benchmarks.drpo_vs_grpo.tiny import parse_method
from qoq_data.errors import QoQError, UsageError

SETTING = Setting("s", (0.7, 0.2, 0.1), (0.0, 0.0, 3.0))


def test_an_estimate_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t of 2 degrees, deviation 1
    assert found.p == pytest.approx(0.0741799, rel=1e-5)  # t = 2·√3
    assert estimate([0.25]).half_width is None
    assert (estimate([0.0, 0.0]).p, estimate([0.5, 0.5]).p) == (1.0, 0.0)
    assert estimate([0.1, 0.3]).text(2, signed=True).startswith("+0.20 ± ")
    for values in ([], [float("nan")], [float("inf"), 1.0]):
        with pytest.raises(ValueError, match="finite"):
            estimate(values)


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_bins_by_hand() -> None:
    rewards = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.2, 0.4]])
    state = BinsState()
    found = bins_advantages(rewards, ["a", "a", "b", "b"], state, bins=2)
    assert state.counts == {"a": 2.0, "b": 2.0}
    assert state.sums == pytest.approx({"a": 1.5, "b": 0.8})
    unit = 1 / math.sqrt(2)  # of two rewards that differ, whatever they are
    a, b = 1.5 / math.sqrt(2), 0.8 / math.sqrt(2)
    raw = np.array([[-1, 1], [0, 0], [-1, 1], [-1, 1]]) * unit
    raw[0] /= a * 0.5
    raw[2] /= b * 0.5
    raw[3] /= b * 0.3
    assert found == pytest.approx(raw / raw.std(ddof=1), rel=1e-4)


def test_questions_are_a_seeds_own() -> None:
    both, one = Questions(SETTING, [0, 1], 3), Questions(SETTING, [1], 3)
    domains = both.drawn_domains(5000)
    assert torch.equal(domains[1], one.drawn_domains(5000)[0])
    assert torch.bincount(domains[0]) / 5000 == pytest.approx(SETTING.shares, abs=0.02)
    seen, right, best = both.ask(domains)
    alone = one.ask(domains[1:])
    assert torch.equal(seen[1], alone[0][0])
    assert torch.equal(right[1], alone[1][0])
    clean = domains < 2
    assert torch.equal(right[clean], best[clean])
    assert 0.3 < (right == best)[~clean].float().mean() < 0.8
    assert torch.equal(seen[0, :, 16:].argmax(-1), domains[0])


@pytest.mark.parametrize("optimiser", ["adam", "length"])
def test_a_batch_of_policies_moves_as_each_alone(optimiser: str) -> None:
    cells = [Cell("grpo", 0.01, optimiser), Cell("grpo", 0.05, optimiser)]  # type: ignore[arg-type]
    policies = Policies(cells, [0, 1], 3)
    own = [[w[i].detach().clone().requires_grad_() for w in policies.weights] for i in range(4)]
    optimisers = [torch.optim.Adam(w, cells[i // 2].rate) for i, w in enumerate(own)]
    seen = torch.randn(2, 6, 19, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        lengths = policies.move(5 * policies.log_probabilities(seen)[..., 0].mean(1).sum())
        for i, (w, adam) in enumerate(zip(own, optimisers, strict=True)):
            logits = torch.relu(seen[i % 2] @ w[0] + w[1]) @ w[2] + w[3]
            loss = 5 * logits.log_softmax(-1)[:, 0].mean()
            gradients = torch.autograd.grad(loss, w)
            norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            before = [x.detach().clone() for x in w]
            for x, g in zip(w, gradients, strict=True):
                x.grad = g / norm.clamp(min=1)
            if optimiser == "adam":
                adam.step()
            else:
                with torch.no_grad():
                    for x, g in zip(w, gradients, strict=True):
                        x.sub_(cells[i // 2].rate * g / norm)
            moved = torch.stack([(x - y).square().sum() for x, y in zip(w, before, strict=True)]).sum().sqrt()
            assert lengths[i] == pytest.approx(moved.item(), rel=1e-3)
    for i, w in enumerate(own):
        for batched, alone in zip(policies.weights, w, strict=True):
            assert torch.allclose(batched[i], alone, atol=1e-5)


def test_draws_follow_the_probabilities() -> None:
    log_probs = torch.tensor([[[0.5, 0.25, 0.15, 0.1]]]).log()
    uniform = torch.tensor([[[0.0, 0.49, 0.51, 0.74, 0.76, 0.89, 0.91, 0.999]]])
    assert bandit._drawn(log_probs, uniform).tolist() == [[[0, 0, 1, 1, 2, 2, 3, 3]]]


def test_macro_f1_of_answers() -> None:
    truth, answered = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    assert bandit._macro_f1(answered, truth) == pytest.approx([(2 / 3 + 4 / 5) / 2])
    # an answer that is never right has no F1, but being named costs the others
    assert bandit._macro_f1(np.array([[0, 3, 1, 1]]), truth) == pytest.approx([(2 / 3 + 1) / 2])


def test_cells_do_not_touch_each_other_and_learn() -> None:
    cells = [Cell("grpo", 0.02), Cell("drpo", 0.02), Cell("damped", 0.02), Cell("remax", 0.02), Cell("bins", 0.02)]
    together = train(SETTING, cells, [0, 1], 12)
    alone = train(SETTING, cells[1:2], [1], 12)
    of = {(line["method"], line["seed"]): line["checks"] for line in together}
    assert alone[0]["checks"].keys() == of["drpo", 1].keys() == {"2", "4", "6", "8", "10", "12"}
    for step, figures in alone[0]["checks"].items():
        assert figures["accuracy"] == pytest.approx(of["drpo", 1][step]["accuracy"], abs=0.01)
    assert len({json.dumps(value) for value in of.values()}) == 10
    for method in ("grpo", "drpo", "damped", "remax", "bins"):
        assert np.mean([of[method, seed]["12"]["accuracy"] for seed in (0, 1)]) > 0.3


def test_a_broken_advantage_does_not_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def rise() -> float:
        line = train(SETTING, [Cell("grpo", 0.02)], [0], 30)[0]
        return float(np.mean(line["checks"]["30"]["accuracy"])) - 0.25

    real = bandit.step_advantages
    assert rise() > 0.12
    monkeypatch.setattr(bandit, "step_advantages", lambda *a, **k: (-real(*a, **k)[0], *real(*a, **k)[1:]))
    assert rise() < 0.03


def test_the_grid_has_every_cell_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = pieces(list(SETTINGS), range(3), 5, lambda setting, cell: False)
    all_cells = [(piece.setting, cell) for piece in work for cell in piece.cells]
    assert len(all_cells) == len(set(all_cells)) == sum(len(cells_of(name)) for name in SETTINGS)
    assert {cell.method for _, cell in all_cells} == set(METHODS) - {"released"}
    assert all(any(cell.rate > 0.01 for s, cell in all_cells if s == name) for name in CORE)
    file = tmp_path / "bandit.jsonl"
    first = run_grid(["rarer"], [0], 2, 1, file)
    assert len(first) == len(cells_of("rarer"))
    kept = file.read_text().splitlines(keepends=True)
    file.write_text("".join(kept[:-1]) + kept[-1][:40])  # the last line was cut short
    ran: list[tuple[str, ...]] = []
    real = train
    monkeypatch.setattr(
        "benchmarks.drpo_vs_grpo.grid.train",
        lambda setting, cells, *rest: ran.append(tuple(c.method for c in cells)) or real(setting, cells, *rest),
    )
    again = run_grid(["rarer"], [0], 2, 1, file)
    assert ran == [(first[-1]["method"],)]
    assert {line["method"]: line["checks"] for line in again} == {line["method"]: line["checks"] for line in first}
    assert len(results.read(file)) == len(first)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "bandit.jsonl"
    assert results.read(file) == []
    file.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(UsageError, match="line 2"):
        results.read(file)
    file.write_text("[1]\n")
    with pytest.raises(UsageError, match="line 1"):
        results.read(file)


def run_of(method: str, seed: int, accuracy: float, **more: object) -> dict[str, object]:
    checks = {"9": {"accuracy": [0.0], "macro_f1": [0.0]}, "10": {"accuracy": [accuracy, 0.5], "macro_f1": [0.4, 0.2]}}
    base = {"task": "bandit", "setting": "rare", "method": method, "rate": 3e-3, "optimiser": "adam", "seed": seed}
    return base | {"steps": 10, "step_length": 0.1, "checks": checks} | more


def test_differences_are_paired_by_seed() -> None:
    lines = [run_of("grpo", 0, 0.1), run_of("grpo", 1, 0.3), run_of("drpo", 0, 0.5), run_of("drpo", 1, 0.7)]
    lines += [run_of("drpo", 2, 0.99)]  # without a partner
    assert mean_accuracy(lines[0]) == pytest.approx(0.3)  # of the last check, 10 and not 9
    found = difference(lines, mean_accuracy, {"method": "drpo"}, {"method": "grpo"})
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    assert found.half_width == pytest.approx(0.0, abs=1e-9)
    assert difference(lines, mean_accuracy, {"method": "rloo"}, {"method": "grpo"}) is None


def test_the_page_keeps_its_words(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "docs"
    results.append(out / "bandit.jsonl", [run_of(m, s, 0.1 * s) for m in ("grpo", "drpo") for s in range(3)])
    sizes = {"sizes": {"steps": 2}, "engine": "vllm", "task": "tiny", "seconds": 1.0}
    domains = {"ct": {"exact_match": 0.5, "macro_f1": 0.4}, "mri": {"exact_match": 0.7, "macro_f1": 0.2}}
    lines = [
        sizes | {"method": m, "seed": 0, "domains": domains, "rewards": []} for m in ("supervised", "grpo", "drpo")
    ]
    tables = tiny_tables(lines)
    assert tables[0].rows[0][1:] == ("0.600", "0.500", "0.700")
    assert latest_sizes([lines[0] | {"engine": "transformers"}, *lines]) == lines
    folder.mkdir()
    page = folder / "drpo_vs_grpo.md"
    page.write_text("before\n<!-- bandit -->\nold\n<!-- /bandit -->\nafter\n<!-- tiny -->\n<!-- /tiny -->\nend\n")
    pytest.importorskip("matplotlib", reason="the pictures need it")
    for _ in range(2):
        written = write_report(out, folder)
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n<!-- tiny -->\n<!-- /tiny -->\nend\n")
    assert text.count("DRPO as shipped") >= 4
    assert [path.name for path in written] == ["drpo_vs_grpo.md", "drpo_vs_grpo_bandit.png"]
    with pytest.raises(UsageError, match="<!-- bandit -->"):
        replaced("no marks", "bandit", "x")
    with pytest.raises(UsageError, match="no finished runs"):
        write_report(tmp_path / "nothing", folder)
    assert bandit_tables([]) == []


def test_methods_are_the_recipes() -> None:
    assert METHODS["paper"].recipe.max_weight_ratio is None
    assert METHODS["paper"].recipe.statistics == "batch"
    assert METHODS["grpo"].recipe.advantage == "grpo"
    assert all(method.recipe.kl_coefficient == 0 for method in METHODS.values())
    assert parse_method("grpo@2") == ("grpo", 2.0)
    assert parse_method("drpo") == ("drpo", 1.0)
    for name in ("bins", "gpro", "grpo@x", "grpo@-1", "grpo@nan", "grpo@inf"):
        with pytest.raises(QoQError):
            parse_method(name)
