"""`python -m experiments.forced train CASE SEED` trains a model; `... judge [MODEL ...]` judges the stored ones."""

import argparse
import sys


def main() -> int:
    """Train one model and store its weights, or judge models and write `results/forced.json`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.forced", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="train one model, in about a minute, and store its weights")
    training.add_argument("case", help="what is forced, such as 'only path'")
    training.add_argument("seed", type=int, help="seed of the weights and of the data")
    judged = verbs.add_parser("judge", help="judge models on 128 prompts of 8 bits, and store the verdicts")
    judged.add_argument("models", nargs="*", help="names, such as 'barred, seed 1'; default: all")
    chosen = parser.parse_args()
    try:
        if chosen.verb == "train":
            from experiments.forced.training import train_and_store

            print(train_and_store(chosen.case, chosen.seed))
        else:
            from experiments.forced.judging import judge_all

            judge_all(chosen.models)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
