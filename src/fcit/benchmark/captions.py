"""Score captions: BLEU, ROUGE-L and CIDEr, and METEOR where the reference's numbers are wanted."""

import math
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from fcit.types import FcitError

References = Sequence[Sequence[str]]
Gram = tuple[str, ...]


def evaluate(
    predictions: Sequence[str], references: References, reference_mode: bool
) -> tuple[float, list[float]]:
    """Corpus-level percent, and the percent of every caption by its sentence-level scores.

    Strict: regex tokens, mean of BLEU-1..4, ROUGE-L and min(CIDEr, 1). Reference: PTB tokens, mean of
    BLEU-1..4, METEOR, ROUGE-L and CIDEr, which is not bounded by 1 (a single caption's percent is cut
    at 100). `references` holds at least one caption with a word per prediction. Raises FcitError in
    reference mode where Java is absent.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions, truths = _tokenized(predictions, references, reference_mode)
    result = {index: [caption] for index, caption in enumerate(captions)}
    truth = dict(enumerate(truths))
    corpus, each = Bleu(4).compute_score(truth, result, verbose=0)
    scores = [
        (float(bleu), list(map(float, bleus))) for bleu, bleus in zip(corpus, each, strict=True)
    ]
    if reference_mode:
        scores.append(_meteor(captions, truths))
    corpus, each = Rouge().compute_score(truth, result)
    scores.append((float(corpus), list(map(float, each))))
    corpus, each = Cider().compute_score(truth, result)
    ceiling = math.inf if reference_mode else 1.0
    scores.append((min(float(corpus), ceiling), [min(float(score), ceiling) for score in each]))
    percent = 100 * sum(score for score, _ in scores) / len(scores)
    means = [sum(many) / len(scores) for many in zip(*(each for _, each in scores), strict=True)]
    return percent, [min(100.0, 100 * mean) for mean in means]


def best_constant(candidates: Sequence[str], references: References, reference_mode: bool) -> str:
    """The candidate that scores highest as the caption of everything.

    METEOR has no say, as it takes seconds a candidate. The first of equals wins.
    """
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.rouge.rouge import Rouge

    captions, truths = _tokenized(candidates, references, reference_mode)
    bleu, rouge = BleuScorer(n=4), Rouge()
    for truth in truths:
        bleu += (captions[0], truth)
    totals: list[float] = []
    for caption, cider in zip(captions, ciders(captions, truths), strict=True):
        bleus, _ = bleu.retest([caption] * len(truths)).compute_score(option="closest")
        overlap = sum(float(rouge.calc_score([caption], truth)) for truth in truths) / len(truths)
        totals.append(sum(bleus) + overlap + (cider if reference_mode else min(cider, 1.0)))
    return candidates[totals.index(max(totals))]


def ciders(candidates: Sequence[str], references: References) -> list[float]:
    """CIDEr (Vedantam et al. 2015, as pycocoevalcap) of each tokenized candidate for everything.

    The references are weighted once for all candidates, which is what makes many affordable.
    """
    from pycocoevalcap.cider.cider_scorer import precook

    cooked = [[precook(caption, 4) for caption in truth] for truth in references]
    frequency = Counter(
        gram for truth in cooked for gram in {gram for caption in truth for gram in caption}
    )
    documents = math.log(len(references))

    def weighted(counts: Mapping[Gram, int]) -> tuple[dict[Gram, float], list[float], int]:
        weights = {
            gram: count * (documents - math.log(max(1.0, frequency[gram])))
            for gram, count in counts.items()
        }
        squares = [0.0] * 4
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight * weight
        pairs = sum(count for gram, count in counts.items() if len(gram) == 2)
        return weights, [math.sqrt(square) for square in squares], pairs

    truths = [[weighted(caption) for caption in truth] for truth in cooked]
    means: list[float] = []
    for candidate in candidates:
        weights, norms, pairs = weighted(precook(candidate, 4))
        total = 0.0
        for truth in truths:
            for other, lengths, others in truth:
                dots = [0.0] * 4
                for gram, weight in weights.items():
                    if gram in other:
                        dots[len(gram) - 1] += min(weight, other[gram]) * other[gram]
                cosines = [
                    dot / (norm * length) if norm and length else dot
                    for dot, norm, length in zip(dots, norms, lengths, strict=True)
                ]
                penalty = math.exp(-((pairs - others) ** 2) / 72)
                total += 10 * penalty * sum(cosines) / 4 / len(truth)
        means.append(total / len(truths))
    return means


def _tokenized(
    predictions: Sequence[str], references: References, reference_mode: bool
) -> tuple[list[str], list[list[str]]]:
    flat = [*predictions, *(caption for truth in references for caption in truth)]
    tokens = _ptb(flat) if reference_mode else [" ".join(_words(text)) for text in flat]
    captions, rest = tokens[: len(predictions)], iter(tokens[len(predictions) :])
    truths = [[next(rest) for _ in truth] for truth in references]
    for number, truth in enumerate(truths, 1):
        if not any(truth):
            raise FcitError(f"captions: none of the references of test record {number} has a word")
    return captions, truths if reference_mode else [list(filter(None, truth)) for truth in truths]


_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def java() -> str:
    """The path of the Java runtime. Raises FcitError where there is none."""
    path = shutil.which("java")
    if not path:
        raise FcitError(
            "captions in reference mode need Java (PTB tokenizer, METEOR), and no java is on the "
            'path; install a Java runtime or score strictly (evaluation.scoring = "strict", or '
            "--mode strict)"
        )
    return path


def _java_command(arguments: Sequence[str]) -> list[str]:
    return [java(), "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Xmx2G", *arguments]


def _run_java(arguments: Sequence[str], lines: Iterable[str], what: str) -> list[str]:
    """The lines that a Java program answers to the lines it is given."""
    command = _java_command(arguments)
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        reason = " ".join(done.stderr.strip().splitlines()[-1:])
        raise FcitError(f"captions: {what} failed under {command[0]}: {reason}")
    return done.stdout.split("\n")[:-1]


def _ptb(texts: Sequence[str]) -> list[str]:
    """Stanford PTB tokens, lower case, without the punctuation pycocoevalcap removes."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    arguments = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", *options]
    lines = _run_java(arguments, (" ".join(text.split()) for text in texts), "the PTB tokenizer")
    if len(lines) != len(texts):
        raise FcitError(f"captions: the PTB tokenizer made {len(lines)} lines of {len(texts)}")
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.split() if word not in dropped) for line in lines]


def _meteor(captions: Sequence[str], truths: References) -> tuple[float, list[float]]:
    """METEOR 1.5 (Denkowski and Lavie 2014): corpus score and every caption's.

    One process answers all lines, each before the next is sent: it takes ten seconds to start.
    """
    from pycocoevalcap.meteor import meteor

    jar = Path(meteor.__file__).with_name(meteor.METEOR_JAR)
    command = _java_command(["-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"])
    pipe, process = subprocess.PIPE, None
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        try:
            with subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8"
            ) as process:
                asks, answers = cast(IO[str], process.stdin), cast(IO[str], process.stdout)

                def tell(*fields: str) -> None:
                    asks.write(" ||| ".join(fields) + "\n")
                    asks.flush()

                statistics = list[str]()
                for caption, truth in zip(captions, truths, strict=True):
                    tell("SCORE", *(text.replace("|||", " ") for text in (*truth, caption)))
                    statistics.append(answers.readline().strip())
                tell("EVAL", *statistics)
                *each, corpus = [float(answers.readline()) for _ in range(len(statistics) + 1)]
        except (OSError, ValueError) as error:
            reason = [str(error)]
            if process and process.returncode:
                errors.seek(0)
                reason += errors.read().strip().splitlines()
            raise FcitError(f"captions: METEOR failed under {command[0]}: {reason[-1]}") from None
    return corpus, each
