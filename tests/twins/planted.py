"""Instances full of identifiers: a unique token wherever a person could be named, and a search for what is left."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pydicom import Dataset, Sequence, dcmwrite
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from mdmfs.hospital.deid.profile import PROFILE
from mdmfs.hospital.deid.tables.dictionary import KIND_UIDS

STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
ROWS: Final = 32
UID_ROOT: Final = "1.3.6.1.4.1.99999."
FIRST_DATE: Final = dt.date(2018, 1, 1)
DATES: Final = 350
"""Planted dates lie within less than 52 weeks, so that a shifted one is never another planted one."""

TEXT_VRS: Final = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN", "UR", "AE"})
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_CANDIDATES: Final = re.compile(rb"zq[a-z]{4}xv|97\d{6}|20\d{6}|" + UID_ROOT.replace(".", r"\.").encode() + rb"[\d.]+")
_DRAWN_UID: Final = re.compile(rb"\b2\.25\.\d{20,39}(?!\d)")
"""A UID of random digits (PS3.5 section B.2), none of which is planted: of some hundred, one holds a date by chance."""
_KEPT: Final = frozenset(
    {
        *(0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00080064, 0x0020000D, 0x0020000E, 0x00180015),
        *(0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103),
        *(0x00280301, 0x00280302, 0x7FE00008, 0x7FE00009, 0x7FE00010, 0xFFFCFFFC),
    }
)
"""Elements that say whether an instance is accepted, and those behind Pixel Data, are set by hand."""


class Kind(enum.Enum):
    """What kind of instance to make, by its SOP class."""

    CT = STORAGE + "2"
    MR = STORAGE + "4"
    PT = STORAGE + "128"
    ENHANCED_MR = STORAGE + "4.1"
    SEG = STORAGE + "66.4"
    RT_PLAN = STORAGE + "481.5"


class OtherKind(enum.Enum):
    """Kinds that a policy must name before they are let through."""

    US = STORAGE + "6.1"
    SC = STORAGE + "7"
    SR = STORAGE + "88.33"
    KO = STORAGE + "88.59"
    PR = STORAGE + "11.1"
    PDF = STORAGE + "104.1"


MODALITIES: Final[dict[Kind | OtherKind, str]] = {
    Kind.CT: "CT",
    Kind.MR: "MR",
    Kind.PT: "PT",
    Kind.ENHANCED_MR: "MR",
    Kind.SEG: "SEG",
    Kind.RT_PLAN: "RTPLAN",
    OtherKind.US: "US",
    OtherKind.SC: "OT",
    OtherKind.SR: "SR",
    OtherKind.KO: "KO",
    OtherKind.PR: "PR",
    OtherKind.PDF: "DOC",
}


class Seeds:
    """Makes tokens that occur nowhere else, and remembers them."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self._count = itertools.count(1)

    def word(self) -> str:
        """Make a token of 8 letters."""
        number = next(self._count)
        letters = ""
        for _ in range(4):
            number, letter = divmod(number, len(_LETTERS))
            letters += _LETTERS[letter]
        return self._planted(f"Zq{letters}xv")

    def number(self) -> str:
        """Make a token of 8 digits."""
        return self._planted(f"97{next(self._count):06d}")

    def uid(self) -> str:
        """Make a UID."""
        return self._planted(f"{UID_ROOT}{next(self._count)}.8")

    def date(self) -> str:
        """Make a date; not unique, but never one that another is shifted to."""
        day = FIRST_DATE + dt.timedelta(next(self._count) % DATES)
        return self._planted(f"{day:%Y%m%d}")

    def value(self, vr: str) -> object:
        """Make a value that is valid for a VR."""
        makers: dict[str, Callable[[], object]] = {
            "PN": lambda: f"{self.word()}^{self.word()}^{self.word()}",
            "UI": self.uid,
            "DA": self.date,
            "DT": lambda: self.date() + "101530.123",
            "TM": lambda: "101530.123",
            "CS": lambda: self.word().upper(),
            "UR": lambda: f"http://{self.word()}.example/{self.word()}",
            "DS": self.number,
            "IS": self.number,
            "AS": lambda: "051Y",
            "OB": lambda: self.word().encode(),
            "UN": lambda: self.word().encode(),
            "US": lambda: 7,
            "SQ": lambda: Sequence([self.person()]),
        }
        return makers.get(vr, self.word)()

    def person(self) -> Dataset:
        """Make an item that names somebody, with a code."""
        item = Dataset()
        item.PersonName = self.value("PN")
        item.InstitutionName = self.word()
        item.CodeValue = self.word()
        item.CodingSchemeDesignator = "DCM"
        item.CodeMeaning = self.word()
        item.PersonIdentificationCodeSequence = Sequence([self.code()])
        return item

    def code(self) -> Dataset:
        """Make a code that PS3.16 lists, with a meaning that it does not."""
        item = Dataset()
        item.CodeValue = "113100"
        item.CodingSchemeDesignator = "DCM"
        item.CodeMeaning = self.word()
        return item

    def _planted(self, token: str) -> str:
        self.tokens.add(token)
        return token


def planted(kind: Kind | OtherKind, *, depth: int = 2, outside: bool = True) -> tuple[Dataset, set[str]]:
    """Make an instance of a kind with tokens in every identifying place; gives it and the tokens.

    Planted are all tags of PS3.15 Table E.1-1 at the top level and down to ``depth``, with ``outside`` all text
    attributes of PS3.6 beside it, private elements, unknown ones, overlays, curves, codes and what follows the pixels.
    """
    seeds = Seeds()
    dataset = Dataset()
    _plant_everything(dataset, seeds, outside=outside)
    level = dataset
    for _ in range(depth):
        item = Dataset()
        _plant_everything(item, seeds, outside=False)
        level.ReferencedSeriesSequence = Sequence([item])
        level = item
    _plant_groups(dataset, seeds)
    _make_acceptable(dataset, seeds, kind)
    dataset.file_meta = _file_meta(dataset, seeds)
    dataset.preamble = seeds.word().encode().ljust(128, b"\0")
    return dataset, seeds.tokens


@functools.cache
def planted_file(
    kind: Kind | OtherKind, *, depth: int = 2, outside: bool = True, transfer_syntax: str = ExplicitVRLittleEndian
) -> tuple[bytes, frozenset[str]]:
    """Make the same as a file, once for all tests."""
    dataset, tokens = planted(kind, depth=depth, outside=outside)
    return written(dataset, transfer_syntax), frozenset(tokens)


@functools.cache
def in_characters_of(charset: str) -> tuple[bytes, frozenset[str]]:
    """Make an MR image whose names and texts are of a script's letters; some come nowhere else, and are the tokens."""
    dataset, tokens = planted(Kind.MR, depth=1, outside=False)
    letters, encoding = CHARACTERS[charset]
    dataset.SpecificCharacterSet = charset.split("\\")
    words = ["".join(letters[(7 * number + 5 * place) % len(letters)] for place in range(5)) for number in range(5)]
    item = Dataset()
    dataset.PatientName = item.PersonName = f"Xx^{words[0]}={words[1]}^{words[2]}"
    dataset.PatientComments = item.InstitutionName = words[3]
    dataset.PatientAddress = words[4]
    dataset.ReferencedPatientSequence = Sequence([item])
    assert all(word.encode(encoding) for word in words)
    return written(dataset), frozenset(tokens | set(words))


CHARACTERS: Final = {
    "ISO_IR 144": ("абвгдежзиклмнопрст", "iso8859_5"),
    "ISO_IR 192": ("山田太郎東京大阪花子病院", "utf_8"),
    "GB18030": ("王小东北京上海医院张伟李", "gb18030"),
    "\\ISO 2022 IR 87": ("山田太郎東京大阪花子病院", "iso2022_jp"),
    "\\ISO 2022 IR 149": ("홍길동김철수서울병원이영", "euc_kr"),
}
"""For each Specific Character Set some of its letters, and the codec of Python."""


def written(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Write an instance as a DICOM file."""
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def find_planted(blob: bytes, tokens: Iterable[str]) -> list[str]:
    """List the tokens that stand in a blob, in any case, as UTF-8, as UTF-16, or each letter at its own even place."""
    wanted = {token.lower().encode() for token in tokens}
    lower = _DRAWN_UID.sub(b"", blob.lower())
    found = {match for text in (lower, lower[::2], lower[1::2]) for match in _matches(text)}
    others = {token for token in wanted if not _CANDIDATES.fullmatch(token)}
    found |= {token for token in others if token in lower}
    found |= {token for token in others if any(form in lower for form in _forms(token.decode()))}
    return sorted(token.decode() for token in found & wanted)


def _forms(token: str) -> Iterator[bytes]:
    """Write a token in the encodings of all scripts, without the escape sequences around it."""
    for encoding in ("utf_16_le", *(encoding for _, encoding in CHARACTERS.values())):
        with contextlib.suppress(UnicodeEncodeError):
            yield re.sub(rb"\x1b\([BJ]$|^\x1b\$[B@]", b"", token.encode(encoding)).lower()


def _matches(text: bytes) -> Iterator[bytes]:
    """Find candidates at every place: runs of digits may hold a token anywhere."""
    position = 0
    while (match := _CANDIDATES.search(text, position)) is not None:
        yield match[0]
        position = match.start() + 1


def _plant_everything(dataset: Dataset, seeds: Seeds, *, outside: bool) -> None:
    for tag in PROFILE:
        if tag >> 16 >= 8 and tag not in _KEPT:
            vr = DicomDictionary[tag][0] if tag in DicomDictionary else "LO"
            dataset.add_new(tag, vr, seeds.value(vr))
    for tag, (vr, *_) in DicomDictionary.items():
        if outside and tag >> 16 >= 8 and vr in TEXT_VRS and tag not in dataset and tag not in _KEPT | KIND_UIDS:
            dataset.add_new(tag, vr, seeds.value(vr))
    _plant_private(dataset, seeds)
    dataset.add_new(0x00080FF0, "UN", seeds.word().encode())
    dataset.ProcedureCodeSequence = Sequence([seeds.code(), seeds.person()])


def _plant_private(dataset: Dataset, seeds: Seeds) -> None:
    """Plant under a creator of the safe list, under an unknown one, and under none."""
    dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    dataset.add_new(0x00191008, "LO", seeds.word())
    dataset.add_new(0x0019100A, "US", 36)
    dataset.add_new(0x00191010, "UN", seeds.word().encode())
    dataset.add_new(0x00191011, "UN", seeds.word().encode("utf_16_le"))
    dataset.add_new(0x20010010, "LO", "Philips Imaging DD 001")
    dataset.add_new(0x20011050, "LO", seeds.word())
    dataset.add_new(0x2001105F, "SQ", Sequence([seeds.person()]))
    dataset.add_new(0x00110010, "LO", seeds.word())
    dataset.add_new(0x00111001, "LO", seeds.word())
    dataset.add_new(0x00111002, "SQ", Sequence([seeds.person()]))
    dataset.add_new(0x00131301, "LT", seeds.word())


def _plant_groups(dataset: Dataset, seeds: Seeds) -> None:
    """Plant in an overlay, a curve and behind Pixel Data."""
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000011, "US", 8)
    dataset.add_new(0x60000022, "LO", seeds.word())
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60003000, "OW", seeds.word().encode())
    dataset.add_new(0x60004000, "LT", seeds.word())
    dataset.add_new(0x50000022, "LO", seeds.word())
    dataset.add_new(0x50003000, "OW", seeds.word().encode())
    dataset.add_new(0x7FE10010, "LO", seeds.word())
    dataset.add_new(0x7FE11001, "OB", seeds.word().encode())
    dataset.add_new(0xFFFCFFFC, "OB", seeds.word().encode())


def _make_acceptable(dataset: Dataset, seeds: Seeds, kind: Kind | OtherKind) -> None:
    """Set what the engine looks at before it lets an instance through."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = UID(kind.value)
    dataset.SOPInstanceUID = seeds.uid()
    dataset.StudyInstanceUID = seeds.uid()
    dataset.SeriesInstanceUID = seeds.uid()
    dataset.Modality = MODALITIES[kind]
    if kind is Kind.RT_PLAN:
        return
    if kind in {OtherKind.SR, OtherKind.KO}:
        _plant_report(dataset, seeds)
        return
    if kind is OtherKind.PR:
        _plant_annotations(dataset, seeds)
        return
    if kind is OtherKind.PDF:
        dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
        dataset.EncapsulatedDocument = b"%PDF-1.4 " + seeds.word().encode().ljust(15)
        return
    if kind is not Kind.SEG:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "CHEST"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames = 2 if kind in {Kind.SEG, Kind.ENHANCED_MR} else 1
    dataset.Rows = dataset.Columns = ROWS
    bits = {Kind.SEG: 1, OtherKind.US: 8, OtherKind.SC: 8}.get(kind, 16)
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    length = ROWS * ROWS * dataset.NumberOfFrames * bits // 8
    dataset.add_new(0x7FE00010, "OW", (bytes(range(256)) * (length // 256 + 1))[:length])


def _plant_report(dataset: Dataset, seeds: Seeds) -> None:
    """Plant in the content tree of a structured report."""
    texts = Dataset()
    texts.RelationshipType, texts.ValueType = "CONTAINS", "TEXT"
    texts.ConceptNameCodeSequence = Sequence([seeds.code()])
    texts.TextValue = seeds.word()
    people = Dataset()
    people.RelationshipType, people.ValueType = "HAS OBS CONTEXT", "PNAME"
    people.ConceptNameCodeSequence = Sequence([seeds.code()])
    people.PersonName = seeds.value("PN")
    inner = Dataset()
    inner.RelationshipType, inner.ValueType, inner.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    inner.ConceptNameCodeSequence = Sequence([seeds.code()])
    inner.ContentSequence = Sequence([texts, people, *_personal_items(seeds)])
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ConceptNameCodeSequence = Sequence([seeds.code()])
    dataset.ContentSequence = Sequence([inner, texts])


def _personal_items(seeds: Seeds) -> Iterator[Dataset]:
    """Say who the subject is, as PS3.16 TID 1007 does, and what was done when and with which object."""
    vrs = {"PersonName": "PN", "Date": "DA", "DateTime": "DT", "UID": "UI", "TextValue": "UT"}
    concepts = [("121029", "PersonName"), ("121030", "TextValue"), ("121031", "Date"), ("121028", "UID")]
    others = [("111060", "Date"), ("111526", "DateTime"), ("112040", "UID"), ("121106", "TextValue")]
    for code, keyword in [*concepts, *others]:
        item = Dataset()
        item.RelationshipType, item.ValueType = "HAS OBS CONTEXT", "TEXT"
        name = Dataset()
        name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = code, "DCM", seeds.word()
        item.ConceptNameCodeSequence = Sequence([name])
        setattr(item, keyword, seeds.value(vrs[keyword]))
        yield item
    age, years, unit = Dataset(), Dataset(), Dataset()
    age.RelationshipType, age.ValueType = "HAS OBS CONTEXT", "NUM"
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121033", "DCM", "Subject Age"
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "a", "UCUM", "year"
    years.NumericValue, years.MeasurementUnitsCodeSequence = "97", Sequence([unit])
    age.ConceptNameCodeSequence, age.MeasuredValueSequence = Sequence([name]), Sequence([years])
    yield age


def _plant_annotations(dataset: Dataset, seeds: Seeds) -> None:
    """Plant in what is drawn on an image, and in the names of layers."""
    text, layer, annotation = Dataset(), Dataset(), Dataset()
    text.UnformattedTextValue = seeds.word()
    annotation.GraphicLayer = seeds.word().upper()
    annotation.TextObjectSequence = Sequence([text])
    layer.GraphicLayer, layer.GraphicLayerDescription = seeds.word().upper(), seeds.word()
    dataset.GraphicAnnotationSequence = Sequence([annotation])
    dataset.GraphicLayerSequence = Sequence([layer])
    dataset.ContentLabel = "LABEL"


def _file_meta(dataset: Dataset, seeds: Seeds) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = UID(seeds.uid())
    meta.ImplementationVersionName = seeds.word()
    meta.SourceApplicationEntityTitle = seeds.word()
    meta.PrivateInformationCreatorUID = UID(seeds.uid())
    meta.PrivateInformation = seeds.word().encode()
    return meta
