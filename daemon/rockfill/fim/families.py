"""The model families as data: which control tokens their prompts are made of, in which order, and what ends them.

Each entry's comment says how its template is known. "from memory" marks what nobody here has seen in a source yet:
such a template is `verified=False` and rendered only on request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Order = Literal["psm", "spm"]
ORDERS: tuple[Order, ...] = ("psm", "spm")


@dataclass(frozen=True, slots=True)
class Marker:
    """One control token: `text` is its name in the vocabulary, `written` how clients type it, where that differs."""

    text: str
    written: str = ""

    def __str__(self) -> str:
        return self.written or self.text


class Slot(Enum):
    """Where a template takes text in. PATH and TEXT belong to context files; TEXT always ends with a newline.

    SPACE is SentencePiece's dummy prefix where clients do not write it: one space that an engine's `tokenize` does not
    add by itself, tokenised together with the text after it.
    """

    SPACE = " "
    PREFIX = "prefix"
    SUFFIX = "suffix"
    FILES = "files"
    PATH = "path"
    TEXT = "text"


Part = Marker | Slot | str  # a plain str is literal text and tokenised together with the text beside it


@dataclass(frozen=True, slots=True)
class Template:
    """The parts of one prompt in order; `verified` is false where no source was found for the string."""

    parts: tuple[Part, ...]
    verified: bool = True


@dataclass(frozen=True, slots=True)
class FileLayout:
    """What `Slot.FILES` becomes when there are files: `lead`, each file as `each`, then `current` (its PATH is that
    of the file being completed). Nothing at all without files."""

    each: tuple[Part, ...]
    lead: tuple[Part, ...] = ()
    current: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family are prompted for the middle.

    `bos` asks for the vocabulary's BOS, exactly once and first; a vocabulary that wants none has none to give.
    `stop_markers` end a completion by their ids (one that the vocabulary lacks is skipped), `stop_texts` as text.
    `files` is None where no layout is documented: context files are then not sent.
    """

    name: str
    default_order: Order
    psm: Template | None
    spm: Template | None
    stop_markers: tuple[Marker, ...]
    stop_texts: tuple[str, ...] = ()
    files: FileLayout | None = None
    bos: bool = False

    def template(self, order: Order) -> Template | None:
        return self.psm if order == "psm" else self.spm

    @property
    def orders(self) -> tuple[Order, ...]:
        """The orders with a verified template, the default first."""
        known = [order for order in ORDERS if (template := self.template(order)) and template.verified]
        return tuple(sorted(known, key=lambda order: order != self.default_order))


def _markers(*texts: str) -> tuple[Marker, ...]:
    return tuple(map(Marker, texts))


_P, _S, _FILES, _PATH, _TEXT = Slot.PREFIX, Slot.SUFFIX, Slot.FILES, Slot.PATH, Slot.TEXT

# The strings of CodeGemma, Qwen and Granite 4 are the same; their vocabularies are not.
_PRE, _SUF, _MID = _markers("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_PIPED = (_PRE, _SUF, _MID)
_END = Marker("<|file_separator|>")

# Prompt and stops: ai.google.dev, "CodeGemma prompt structure", and the model card. The card also says that training
# was half PSM, half SPM, but prints no SPM string; this one is what llama.cpp --spm-infill writes. Files: the card
# gives <|file_separator|> "for multi-file contexts" and no header for a path.
CODEGEMMA = Family(
    name="codegemma",
    default_order="psm",
    psm=Template((_FILES, _PRE, _P, _SUF, _S, _MID)),
    spm=Template((_FILES, _SUF, _S, _PRE, _P, _MID), verified=False),
    stop_markers=(_END, *_PIPED, *_markers("<end_of_turn>", "<eos>")),
    files=FileLayout(each=(_TEXT, _END)),
    bos=True,
)

# The bundled model: four fifths of its training were SPM, one fifth PSM (packaging/tiny-model), one file at a time.
ROCKFILL = Family(
    name="rockfill",
    default_order="spm",
    psm=Template((_PRE, _P, _SUF, _S, _MID)),
    spm=Template((_SUF, _S, _PRE, _P, _MID)),
    stop_markers=(_END, *_PIPED, Marker("<eos>")),
    bos=True,
)

# Prompt: README of QwenLM/Qwen2.5-Coder, file-level and repository-level completion; Qwen3-Coder's README shows the
# same. Both names that are not known are written as llama.cpp's server writes them. SPM: arXiv 2409.12186 has PSM only.
_QWEN_SEP = Marker("<|file_sep|>")
_QWEN_REPO = Marker("<|repo_name|>")
QWEN_CODER = Family(
    name="qwen2.5-coder",
    default_order="psm",
    psm=Template((_FILES, _PRE, _P, _SUF, _S, _MID)),
    spm=None,
    stop_markers=(
        *_markers("<|endoftext|>", "<|fim_pad|>", "<|im_start|>", "<|im_end|>"),
        *_PIPED,
        _QWEN_SEP,
        _QWEN_REPO,
    ),
    files=FileLayout(
        lead=(_QWEN_REPO, "myproject\n"), each=(_QWEN_SEP, _PATH, "\n", _TEXT), current=(_QWEN_SEP, _PATH, "\n")
    ),
)

# llama.cpp, src/llama-vocab.cpp, and the model cards ("Fill-in-the-middle").
GRANITE4 = Family(
    name="granite4",
    default_order="psm",
    psm=Template((_PRE, _P, _SUF, _S, _MID)),
    spm=None,
    stop_markers=(*_markers("<|end_of_text|>", "<|fim_pad|>"), *_PIPED),
)

_U_PRE, _U_SUF, _U_MID = _UNDERSCORE = _markers("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
_U_END = Marker("<|endoftext|>")
# "SPMv2" of bigcode-project/Megatron-LM, which StarCoder was trained with: from memory, verify per model.
_U_SPM = Template((_U_PRE, _U_SUF, _S, _U_MID, _P), verified=False)

# arXiv 2402.19173, section 5.1: <file_sep>code1<file_sep>code2, with paths in half of the data; without here, as a
# path would have to stand inside the prefix.
_FILE_SEP = Marker("<file_sep>")
STARCODER2 = Family(
    name="starcoder2",
    default_order="psm",
    psm=Template((_FILES, _U_PRE, _P, _U_SUF, _S, _U_MID)),
    spm=Template((_FILES, *_U_SPM.parts), verified=False),
    stop_markers=(_U_END, *_UNDERSCORE, _FILE_SEP),
    files=FileLayout(each=(_FILE_SEP, _TEXT), current=(_FILE_SEP,)),
)

# StarCoder 1, StableCode, CodeQwen 1.5 and Granite Code (3B, 8B): model cards. The closing tags are texts that
# StableCode writes (Continue stops there). A form for files is not documented for all of them.
STARCODER = Family(
    name="starcoder",
    default_order="psm",
    psm=Template((_U_PRE, _P, _U_SUF, _S, _U_MID)),
    spm=_U_SPM,
    stop_markers=(_U_END, *_UNDERSCORE, *_markers("<file_sep>", "<filename>", "<reponame>")),
    stop_texts=("</fim_middle>", "</code>"),
)

# Model card of smallcloudai/Refact-1_6B-fim.
REFACT = Family(
    name="refact",
    default_order="psm",
    psm=Template((_U_PRE, _P, _U_SUF, _S, _U_MID)),
    spm=_U_SPM,
    stop_markers=(_U_END, *_UNDERSCORE),
)

# arXiv 2510.05788 (S-P-M) and the card of JetBrains/Mellum-4b-base, whose example has the files too.
_FILENAME = Marker("<filename>")
MELLUM = Family(
    name="mellum",
    default_order="spm",
    psm=None,
    spm=Template((_FILES, _U_SUF, _S, _U_PRE, _P, _U_MID)),
    stop_markers=(_U_END, *_UNDERSCORE, _FILENAME),
    files=FileLayout(each=(_FILENAME, _PATH, "\n", _TEXT), current=(_FILENAME, _PATH, "\n")),
    bos=True,  # follows the vocabulary's own setting
)

# README of deepseek-ai/DeepSeek-Coder (U+FF5C and U+2581 in the names). Its repository-level example is plain
# continuation of "#path\ncode" blocks; that they may stand before a FIM prompt is from memory, verify.
_DS_BEGIN, _DS_HOLE, _DS_END = _DEEPSEEK = _markers("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
DEEPSEEK_CODER = Family(
    name="deepseek-coder",
    default_order="psm",
    psm=Template((_FILES, _DS_BEGIN, _P, _DS_HOLE, _S, _DS_END)),
    spm=None,
    stop_markers=(*_DEEPSEEK, Marker("<｜end▁of▁sentence｜>")),
    files=FileLayout(each=("#", _PATH, "\n", _TEXT), current=("#", _PATH, "\n")),
    bos=True,
)

# facebookresearch/codellama, llama/generation.py (infilling_prompt_tokens), and arXiv 2308.12950: the prefix is encoded
# with SentencePiece's dummy prefix, suffix and middle without, so the engine must not strip a space from the first
# piece that it generates. Clients write "<PRE> P <SUF>S <MID>": the first space is that dummy, the others are part of
# the tokens, which the vocabulary names with U+2581.
_CL_PRE, _CL_SUF = Marker("▁<PRE>", "<PRE>"), Marker("▁<SUF>", " <SUF>")
_CL_MID, _CL_EOT = Marker("▁<MID>", " <MID>"), Marker("▁<EOT>", " <EOT>")
CODELLAMA = Family(
    name="codellama",
    default_order="psm",
    psm=Template((_CL_PRE, " ", _P, _CL_SUF, _S, _CL_MID)),
    spm=Template((_CL_PRE, _CL_SUF, _S, _CL_MID, " ", _P)),
    stop_markers=(_CL_EOT, _CL_PRE, _CL_SUF, _CL_MID),
    bos=True,
)

# mistralai/cookbook, "Tokenization" (tokenizer V3, Codestral-22B): "<s>[SUFFIX]suffix[PREFIX] prefix". Files at the
# head of the prefix: Continue's AutocompleteTemplate.ts.
_CS_SUFFIX, _CS_PREFIX = _markers("[SUFFIX]", "[PREFIX]")
CODESTRAL = Family(
    name="codestral",
    default_order="spm",
    psm=None,
    spm=Template((_CS_SUFFIX, _S, _CS_PREFIX, Slot.SPACE, _FILES, _P)),
    stop_markers=(_CS_SUFFIX, _CS_PREFIX),
    stop_texts=("\n+++++ ",),
    files=FileLayout(each=("+++++ ", _PATH, "\n", _TEXT, "\n"), current=("+++++ ", _PATH, "\n")),
    bos=True,
)

# arXiv 2506.03524, section on FIM, and the card: suffix first. Clients write PSM nonetheless (Continue), which is
# read but not sent. The paper's samples are single files; <filename> is Zed's fine-tune of it.
_SC_PRE, _SC_SUF, _SC_MID = _SEED = _markers("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>")
SEED_CODER = Family(
    name="seed-coder",
    default_order="spm",
    psm=Template((_SC_PRE, _P, _SC_SUF, _S, _SC_MID), verified=False),
    spm=Template((_SC_SUF, _S, _SC_PRE, _P, _SC_MID)),
    stop_markers=(*_SEED, Marker("<[end▁of▁sentence]>")),
    bos=True,  # follows the vocabulary's own setting
)

# llama.cpp, src/llama-vocab.cpp (GLM-4.5), and Zed's fim.rs.
_G_PRE, _G_SUF, _G_MID = _GLM = _markers("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>")
GLM = Family(
    name="glm",
    default_order="psm",
    psm=Template((_G_PRE, _P, _G_SUF, _S, _G_MID)),
    spm=None,
    stop_markers=(*_GLM, *_markers("<|endoftext|>", "<|user|>")),
    bos=True,  # follows the vocabulary's own setting
)

FAMILIES: tuple[Family, ...] = (
    QWEN_CODER,
    CODEGEMMA,
    STARCODER2,
    STARCODER,
    DEEPSEEK_CODER,
    CODELLAMA,
    CODESTRAL,
    SEED_CODER,
    MELLUM,
    GLM,
    GRANITE4,
    REFACT,
    ROCKFILL,
)

BY_NAME: Mapping[str, Family] = {family.name: family for family in FAMILIES}

# Most specific first. Not every member of a line was trained to infill: arXiv 2308.12950 leaves out Code Llama's
# Python models and 34B, and Mamba Codestral has no FIM tokens.
_NAMES: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"rockfill-\w", ROCKFILL),
        (r"code-?gemma", CODEGEMMA),
        (r"code-?qwen", STARCODER),
        (r"qwen[^/]*coder", QWEN_CODER),
        (r"star-?coder-?2", STARCODER2),
        (r"star-?coder|stable-?code|granite(?!-?4)[^/]*code", STARCODER),
        (r"granite-?4", GRANITE4),
        (r"deepseek-?coder", DEEPSEEK_CODER),
        (r"code-?llama(?!.*(python|34b))", CODELLAMA),
        (r"(?<!mamba-)codestral(?!-mamba)", CODESTRAL),
        (r"seed-?coder", SEED_CODER),
        (r"mellum", MELLUM),
        (r"refact-?1", REFACT),
        (r"glm-?4", GLM),
    )
)


def family_of(name: str) -> Family | None:
    """The family that a model's, repository's or file's name speaks of; None if it names none that can infill.

    The last component of a path is asked first, so that ``rockfill-models/codegemma-2b`` is CodeGemma.
    """
    whole = name.lower().replace("_", "-").rstrip("/")
    for text in (whole.rpartition("/")[2], whole):
        for pattern, family in _NAMES:
            if pattern.search(text):
                return family
    return None
