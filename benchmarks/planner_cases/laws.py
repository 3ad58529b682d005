"""Answers to cases of scaling laws and repeated data.

Which function answers follows from what a case gives and asks for. Constants and closed forms must be right to the
printed digit; a law beside something that was measured has no tolerance, its error is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from firstlight.planning import kaplan, repeated_data
from firstlight.planning.scaling_laws import (
    BESIROGLU,
    BESIROGLU_ROUNDED,
    CHINCHILLA,
    CHINCHILLA_EXPONENTS,
    CHINCHILLA_FRONTIERS,
    CHINCHILLA_ROUNDED,
    GADRE,
    LLAMA_3,
    Allocation,
    ParametricLaw,
    cerebras_gpt_loss,
    chinchilla_frontier,
)
from planner_cases.answer import Answer, Case, Comparison, UnansweredError
from planner_cases.figures import EXACT, compare, compare_all, evaluate, first, numbers

LAWS = {"rounded": CHINCHILLA_ROUNDED, "tex": CHINCHILLA, "besiroglu": BESIROGLU}
"""By the cases' names of the constants."""
PRINTED_LAWS = {**LAWS, "besiroglu": BESIROGLU_ROUNDED}
"""For the loss of one N and D by several laws, which people work out from constants as printed."""
MISPRINT = 0.2
"""A printed pair of C and D with 6ND/C further from 1 than this contradicts itself."""
FIT_TOLERANCE = 1e-4
"""Of constants that an optimizer found: the packaged ones have five digits."""
GRID_TOLERANCE = 0.005
"""Of a figure that its source read off a grid of budgets, and not at the budget that it names."""
KAPLAN_CONSTANTS = {
    "N_exponent": kaplan.PARAMETERS_EXPONENT,
    "D_exponent": kaplan.TOKENS_EXPONENT,
    "B_exponent": kaplan.BATCH_EXPONENT,
    "S_exponent": kaplan.STEPS_EXPONENT,
    "alpha_N": kaplan.ALPHA_N,
    "N_c": kaplan.N_C,
    "alpha_D": kaplan.ALPHA_D,
    "D_c": kaplan.D_C,
    "alpha_C_min": kaplan.ALPHA_C_MIN,
    "C_c_min_PFdays": kaplan.C_C_MIN_PF_DAYS,
    "B_star_tokens": kaplan.B_STAR_TOKENS,
    "alpha_B": kaplan.ALPHA_B,
    "alpha_S": kaplan.ALPHA_S,
    "S_c": kaplan.S_C,
}


def scaling_law(case: Case) -> list[Comparison]:
    """Constants of the laws, tables of the best use of compute, and losses."""
    inputs, published = case["inputs"], case["published"]
    if {"approach", "N"} <= inputs.keys():
        return _table_row(case)
    if "approach" in inputs:
        return _exponents(case)
    if {"alpha", "beta"} <= published.keys() and published.keys() & {"E", "A", "B", "log_params"}:
        return _constants(case)
    if published.keys() & KAPLAN_CONSTANTS.keys():
        return compare_all(case, KAPLAN_CONSTANTS)
    if "chinchilla_curve" in inputs:
        return _curve(case)
    if {"C", "alpha", "A"} <= inputs.keys():
        return compare_all(case, {"D_from_printed_constants": LLAMA_3.allocation(inputs["C"]).tokens})
    if "C" in inputs and "cerebras" in case["source"].lower():
        return _cerebras(case)
    if "grid" in inputs and "C" in inputs:
        return _grid(case)
    if "params" in inputs or {"N", "D"} <= inputs.keys():
        return scaling_law_computed(case)
    if "L" in inputs or "loss" in inputs:
        return _critical_batch(case)
    raise UnansweredError(
        f"no published law gives {', '.join(published) or 'it'} from {', '.join(inputs) or 'nothing'}"
    )


def _table_row(case: Case) -> list[Comparison]:
    inputs, published = case["inputs"], case["published"]
    best = CHINCHILLA_FRONTIERS[inputs["approach"]].for_parameters(inputs["N"])
    printed = Allocation(inputs["N"], published["D"])
    ratio = printed.flops / published["C"]
    found = [compare(case, "D", best.tokens)]
    if abs(ratio - 1) <= MISPRINT:
        found.append(compare(case, "C", best.flops))
    else:
        found.append(Comparison(f"published.C (misprint: 6ND/C is {ratio:.3g})", published["C"], best.flops))
    identities = {"6ND_over_C": ratio, "D_over_N": printed.tokens_per_parameter}
    by_law = {
        f"D_from_{name}{end}": law.frontier.for_parameters(inputs["N"]).tokens
        for name, law in LAWS.items()
        for end in ("", "_params")
    }
    for key in case.get("derived", {}):
        if key in identities:
            found.append(compare(case, key, identities[key], where="derived", exact=True))
        elif key in by_law:
            found.append(compare(case, key, by_law[key], where="derived", exact=True))
    return found


def _exponents(case: Case) -> list[Comparison]:
    exponents = CHINCHILLA_EXPONENTS.get(case["inputs"]["approach"])
    if exponents is None:
        raise UnansweredError(f"there is no approach {case['inputs']['approach']}")
    found = compare_all(case, {"a": exponents.parameters, "b": exponents.tokens})
    intervals = (exponents.parameters_interval, exponents.tokens_interval)
    for printed, interval in zip(case["published"].get("p10_p90", ()), intervals, strict=False):
        found += [Comparison("published.p10_p90", *pair, EXACT) for pair in zip(printed, interval, strict=True)]
    return found


def _constants(case: Case) -> list[Comparison]:
    """Of the parametric form; whose they are is in the source, else in how many digits they have."""
    published, words = case["published"], f"{case['source']} {case['provenance']} {case.get('note', '')}".lower()
    if "besiroglu" in case["source"].lower():
        law = BESIROGLU
    elif "tex" in words.replace("text", "") or len(str(published["alpha"])) > 4:
        law = CHINCHILLA
    else:
        law = CHINCHILLA_ROUNDED
    frontier = law.frontier
    found = compare_all(
        case,
        {
            **{name: getattr(law, name) for name in ("E", "A", "B", "alpha", "beta")},
            "a_exponent": frontier.exponent,
            "b_exponent": 1 - frontier.exponent,
            "G": frontier.coefficient,
        },
    )
    logarithms = [*(math.log(value) for value in (law.A, law.B, law.E)), law.alpha, law.beta]
    for printed, value in zip(published.get("log_params", ()), logarithms, strict=False):
        found.append(Comparison("published.log_params", printed, value, 1e-8))
    return found


def _curve(case: Case) -> list[Comparison]:
    """Tokens per parameter of two fits at one budget, as a notebook reads them off a grid of budgets, one of them at
    the grid's first, 1e18."""
    flops = case["inputs"]["C"]
    figures = {
        "hoffmann_D_over_N": chinchilla_frontier(3, exponent=0.4545).allocation(flops).tokens_per_parameter,
        "hoffmann_tex_closed_form": CHINCHILLA.optimum(flops).tokens_per_parameter,
        f"besiroglu_closed_form_at_{flops / 1e23:g}e23": BESIROGLU.optimum(flops).tokens_per_parameter,
        "besiroglu_closed_form_at_1e18": BESIROGLU.optimum(1e18).tokens_per_parameter,
        "besiroglu_D_over_N_printed": BESIROGLU.optimum(1e18).tokens_per_parameter,
    }
    return [
        Comparison(f"{where}.{key}", value, figures[key], GRID_TOLERANCE)
        for where, key, value in numbers(case)
        if key in figures
    ]


def _cerebras(case: Case) -> list[Comparison]:
    loss = cerebras_gpt_loss(case["inputs"]["C"])
    found = [compare(case, key, loss, where=where) for where, key, _ in numbers(case) if "law" in key or "loss" in key]
    if not found:
        raise UnansweredError("it prints no loss")
    return found


def _grid(case: Case) -> list[Comparison]:
    """The least loss along C = 6ND among the sizes of a grid."""
    inputs = case["inputs"]
    law = _law(inputs)
    sizes = evaluate(inputs["grid"])
    parameters = min(sizes, key=lambda size: law.loss(size, inputs["C"] / 6 / size))
    return compare_all(case, {"N": parameters, "D": inputs["C"] / 6 / parameters})


def scaling_law_computed(case: Case) -> list[Comparison]:
    """The closed forms of a set of constants: the best N, D and loss for a budget, or the loss of N and D."""
    inputs = case["inputs"]
    if {"N", "D"} <= inputs.keys():
        point = Allocation(inputs["N"], inputs["D"])
    elif "C" in inputs:
        point = _law(inputs).optimum(inputs["C"])
    else:
        raise UnansweredError(f"no closed form for {', '.join(inputs)}")
    figures = {
        f"{key}_{name}": law.loss(point.parameters, point.tokens)
        for key in ("L", "loss")
        for name, law in PRINTED_LAWS.items()
    }
    if "params" in inputs:
        loss = _law(inputs).loss(point.parameters, point.tokens)
        figures |= {"N": point.parameters, "D": point.tokens, "L": loss, "loss": loss}
    return compare_all(case, {**figures, "D_over_N": point.tokens_per_parameter, "C": point.flops})


def _law(inputs: Mapping[str, Any]) -> ParametricLaw:
    if inputs.get("params") not in LAWS:
        raise UnansweredError(f"constants '{inputs.get('params')}' are not among {', '.join(LAWS)}")
    return LAWS[inputs["params"]]


def _critical_batch(case: Case) -> list[Comparison]:
    loss = first(case["inputs"], ("L", "loss"))
    assert loss is not None
    batch = kaplan.critical_batch_tokens(loss)
    return compare_all(case, dict.fromkeys(("B_crit", "B_crit_tokens", "critical_batch_tokens"), batch))


def scaling_law_overtrain(case: Case) -> list[Comparison]:
    """Gadre et al.: constants by training text, and their predictions."""
    inputs, published = case["inputs"], case["published"]
    law = GADRE.get(inputs.get("train", ""))
    if law is None:
        raise UnansweredError(f"no constants for training on {inputs.get('train')}")
    constants = {"al": law.alpha, "be": law.beta, "b": law.exponent, "E": law.E}
    found = [
        Comparison(f"{where}.{key}", value, constants[key], FIT_TOLERANCE)
        for where, key, value in numbers(case)
        if key in constants
    ]
    if {"N", "M"} <= inputs.keys():
        predicted = law.loss(inputs["N"], inputs["M"])
        figures = {"pred": predicted}
        if "measured_loss" in published:
            figures["relative_error_pct"] = 100 * abs(predicted / published["measured_loss"] - 1)
        found += compare_all(case, figures)
    if not found:
        raise UnansweredError("it prints neither constants nor a prediction")
    return found


def loss_measured(case: Case) -> list[Comparison]:
    """Measured losses beside the law of the same training text, which was fitted to five of them."""
    inputs = case["inputs"]
    law = GADRE.get(inputs.get("train", ""))
    if law is None or not {"N", "D"} <= inputs.keys():
        raise UnansweredError(f"no law for training on {inputs.get('train')}")
    predicted = law.loss(inputs["N"], inputs["D"] / inputs["N"])
    found = [Comparison(f"{where}.{key}", value, predicted) for where, key, value in numbers(case) if "loss" in key]
    if not found:
        raise UnansweredError("it prints no loss")
    return found


def data_constrained(case: Case) -> list[Comparison]:
    """Muennighoff et al.: constants, effective tokens, loss, and the best use of compute on little text."""
    inputs = case["inputs"]
    if "epochs" in inputs:
        return compare_all(case, {"D_eff_over_U": repeated_data.effective_tokens(1.0, inputs["epochs"])})
    if {"N", "D", "U"} <= inputs.keys():
        return compare_all(case, {"L": repeated_data.loss(inputs["N"], inputs["D"], inputs["U"])})
    if {"C", "U"} <= inputs.keys():
        factors = evaluate(inputs["grid"]) if "grid" in inputs else None
        best = repeated_data.optimum(inputs["C"], inputs["U"], factors)
        return compare_all(case, {"N": best.parameters, "D": best.tokens, "epochs": best.tokens / inputs["U"]})
    law, frontier = repeated_data.UNREPEATED, repeated_data.UNREPEATED.frontier
    logarithm = math.log
    return compare_all(
        case,
        {
            "a": logarithm(law.A),
            "b": logarithm(law.B),
            "e": logarithm(law.E),
            **{name: getattr(law, name) for name in ("A", "B", "E", "alpha", "beta")},
            "R_D_star": repeated_data.DECAY_REPETITIONS,
            "R_N_star": repeated_data.DECAY_EXCESS_PARAMETERS,
            "G": frontier.coefficient,
            "D_over_N_opt": frontier.allocation(1e21).tokens_per_parameter,
        },
    )


def data_constrained_measured(case: Case) -> list[Comparison]:
    """Measured losses of repeated text: the law is 6 to 8 % low, as its authors say, and too kind beyond 14 epochs."""
    inputs = case["inputs"]
    if not {"N", "D", "U"} <= inputs.keys():
        raise UnansweredError(f"no law for {', '.join(inputs)}")
    predicted = repeated_data.loss(inputs["N"], inputs["D"], inputs["U"])
    found = []
    if "loss" in case["published"]:
        found.append(Comparison("published.loss", case["published"]["loss"], predicted))
    if "formula_loss" in case.get("derived", {}):
        found.append(compare(case, "formula_loss", predicted, where="derived"))
    if not found:
        raise UnansweredError("it prints no loss")
    return found


ANSWERS: dict[str, Answer] = {
    "scaling-law": scaling_law,
    "scaling-law-computed": scaling_law_computed,
    "scaling-law-overtrain": scaling_law_overtrain,
    "loss-measured": loss_measured,
    "data-constrained": data_constrained,
    "data-constrained-measured": data_constrained_measured,
}
