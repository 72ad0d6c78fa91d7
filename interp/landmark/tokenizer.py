"""The byte-level BPE of the bundled model, and the annotations of a document brought from characters to tokens."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp.landmark.writing import Document, SpanKind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
FILE = Path(__file__).parent / "model" / "tokenizer.json"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 3072) -> "Tokenizer":
    """A byte-level BPE learnt from the texts, which puts `<|endoftext|>` before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
            ),
        ]
    )  # type: ignore[assignment]
    return tokenizer


def read_tokenizer(file: Path = FILE) -> "Tokenizer":
    """The tokenizer of the bundled model."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


@dataclass(frozen=True)
class AnnotatedTokens:
    """A tokenised document: ids, and per token what it expresses (an empty string where nothing)."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    document: Document

    def labels(self, kind: SpanKind) -> list[str]:
        """Per token, the value of the innermost span of this kind that covers it."""
        found = [""] * len(self.ids)
        spans = sorted((s for s in self.document.spans if s.kind == kind), key=lambda s: s.start - s.end)
        for span in spans:
            for i in self._tokens(span.start, span.end):
                found[i] = span.value
        return found

    def number_spans(self, kind: SpanKind) -> list[int]:
        """Per token, the number of the outermost span of this kind that covers it, counted from 1; 0 where none."""
        found = [0] * len(self.ids)
        spans = sorted((s for s in self.document.spans if s.kind == kind), key=lambda s: s.end - s.start)
        for number, span in enumerate(spans, 1):
            for i in self._tokens(span.start, span.end):
                found[i] = number
        return found

    def _tokens(self, start: int, end: int) -> Iterable[int]:
        return (i for i, (a, b) in enumerate(self.offsets) if a < end and b > start and b > a)


def annotate(tokenizer: "Tokenizer", documents: list[Document]) -> list[AnnotatedTokens]:
    """Tokenise documents, keeping what each token expresses."""
    encoded = tokenizer.encode_batch([d.text for d in documents])
    return [AnnotatedTokens(e.ids, e.offsets, d) for e, d in zip(encoded, documents, strict=True)]
