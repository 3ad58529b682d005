"""Answers to cases of learning-rate and batch laws: formulas that are printed as text, models, and measured grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from firstlight.planning import hyperparameter_laws
from planner_cases.answer import Answer, Case, Comparison, UnansweredError
from planner_cases.figures import EXACT, compare, compare_all, evaluate

PROBES: dict[str, tuple[float, ...]] = {
    "C": (1e18, 3e21, 1e24),
    "N": (1e8, 7e9, 1e11),
    "D": (1e10, 1.4e12, 1e13),
    "L": (3.0, 2.5, 2.0),
    "l": (12, 30, 95),
    "d": (768, 4096, 8192),
    "s": (1024, 4096, 8192),
    "B_ref": (2**19, 2**19, 2**20),
    "D_ref": (1e9, 2e9, 4e9),
    "B": (2**19, 2**20, 2**21),
}
"""Where a formula that is printed as text is compared with the function, one after the other."""


def _deepseek(name: str, at: Mapping[str, float]) -> float:
    laws: dict[str, Callable[[], float]] = {
        "lr": lambda: hyperparameter_laws.deepseek_learning_rate(at["C"]),
        "batch_tokens": lambda: hyperparameter_laws.deepseek_batch_tokens(at["C"]),
        "M_opt": lambda: hyperparameter_laws.deepseek_allocation(at["C"])[0],
        "D_opt": lambda: hyperparameter_laws.deepseek_allocation(at["C"])[1],
        "M": lambda: hyperparameter_laws.deepseek_flops_per_token(int(at["l"]), int(at["d"]), int(at["s"])),
    }
    return laws[name]()


def _step_law(name: str, at: Mapping[str, float]) -> float:
    laws: dict[str, Callable[[], float]] = {
        "lr": lambda: hyperparameter_laws.step_law_learning_rate(at["N"], at["D"]),
        "batch_tokens": lambda: hyperparameter_laws.step_law_batch_tokens(at["D"]),
    }
    return laws[name]()


def _minicpm(name: str, at: Mapping[str, float]) -> float:
    laws: dict[str, Callable[[], float]] = {
        "batch_tokens": lambda: hyperparameter_laws.minicpm_batch_tokens(at["L"]),
        "D_over_N_opt": lambda: hyperparameter_laws.MINICPM_TOKENS_PER_PARAMETER,
    }
    return laws[name]()


def _nanochat(name: str, at: Mapping[str, float]) -> float:
    laws: dict[str, Callable[[], float]] = {
        "batch": lambda: hyperparameter_laws.nanochat_batch_tokens(at["D"], at["D_ref"], int(at["B_ref"])),
        "lr_scale": lambda: hyperparameter_laws.learning_rate_for_batch(1.0, at["B_ref"], at["B"]),
    }
    return laws[name]()


FAMILIES = {"deepseek": _deepseek, "step law": _step_law, "minicpm": _minicpm, "nanochat": _nanochat}
"""By a word of the case's source."""


def hparam_law(case: Case) -> list[Comparison]:
    """Laws printed as formulas, compared where PROBES are, and the law for a model that was trained."""
    if {"n_layer", "d_model", "seq", "tokens"} <= case["inputs"].keys():
        return _deepseek_model(case)
    if {"N", "D"} <= case["inputs"].keys():
        return _step_law_point(case)
    family = next((law for word, law in FAMILIES.items() if word in case["source"].lower()), None)
    if family is None:
        raise UnansweredError(f"no law from {case['source']}")
    found = []
    for key, printed in case["published"].items():
        for index in range(3):
            at = {name: values[index] for name, values in PROBES.items()}
            try:
                value = family(key, at)
            except KeyError:
                break
            if isinstance(printed, str):
                found.append(Comparison(f"published.{key} at probe {index + 1}", evaluate(printed, at), value, EXACT))
            else:
                found.append(compare(case, key, value))
                break
    found += _step_law_fit(case)
    if not found:
        raise UnansweredError(f"no function gives {', '.join(case['published'])}")
    return found


def _step_law_fit(case: Case) -> list[Comparison]:
    """Exponents of the bootstrap behind the printed law: equal to three decimals. Its median coefficient is another."""
    exponents = {
        "csv_mean_coefN": hyperparameter_laws.STEP_LAW_RATE_PARAMETERS,
        "csv_mean_coefD": hyperparameter_laws.STEP_LAW_RATE_TOKENS,
        "csv_mean_bs_coefD": hyperparameter_laws.STEP_LAW_BATCH_TOKENS,
    }
    return [
        Comparison(f"derived.{key}", case["derived"][key], value, 0.0005 / abs(value))
        for key, value in exponents.items()
        if key in case.get("derived", {})
    ]


def _deepseek_model(case: Case) -> list[Comparison]:
    inputs = case["inputs"]
    per_token = hyperparameter_laws.deepseek_flops_per_token(inputs["n_layer"], inputs["d_model"], inputs["seq"])
    flops = per_token * inputs["tokens"]
    rate = hyperparameter_laws.deepseek_learning_rate(flops)
    sequences = hyperparameter_laws.deepseek_batch_tokens(flops) / inputs["seq"]
    figures = {
        "M": per_token,
        "C": flops,
        "lr_law": rate,
        "batch_seqs_law": sequences,
        "peak_lr": rate,
        "batch_seqs": sequences,
    }
    return compare_all(case, figures)


def _step_law_point(case: Case) -> list[Comparison]:
    inputs = case["inputs"]
    rate = hyperparameter_laws.step_law_learning_rate(inputs["N"], inputs["D"])
    batch = hyperparameter_laws.step_law_batch_tokens(inputs["D"])
    return compare_all(
        case, {**dict.fromkeys(("lr", "law_lr"), rate), **dict.fromkeys(("batch_tokens", "law_batch"), batch)}
    )


def hparam_measured(case: Case) -> list[Comparison]:
    """The best cell of a grid of learning rates and batches, beside Step Law; the grid is coarse, the valley flat."""
    inputs = case["inputs"]
    if not {"N_nonemb", "D"} <= inputs.keys():
        raise UnansweredError(f"no law for {', '.join(inputs)}")
    rate = hyperparameter_laws.step_law_learning_rate(inputs["N_nonemb"], inputs["D"])
    batch = hyperparameter_laws.step_law_batch_tokens(inputs["D"])
    found = [
        Comparison(f"published.{key}", case["published"][key], value)
        for key, value in (("lr", rate), ("batch_tokens", batch))
        if key in case["published"]
    ]
    for key, value in (("law_lr", rate), ("law_batch", batch)):
        if key in case.get("derived", {}):
            found.append(compare(case, key, value, where="derived"))
    return found


ANSWERS: dict[str, Answer] = {"hparam-law": hparam_law, "hparam-measured": hparam_measured}
