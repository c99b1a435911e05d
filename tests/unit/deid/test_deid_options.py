"""Options that research does not claim: structured content, devices, institutions, full dates; and reviewed classes."""

from __future__ import annotations

import dataclasses
import io
from typing import Final

import pydicom
import pytest
from pydicom import Dataset, Sequence

from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from tests.twins.deidentified import RESEARCH, deidentified, reviewed, with_elements
from tests.twins.planted import OtherKind, find_planted, planted, planted_file, written

WITHOUT_PIXELS: Final = [OtherKind.SR, OtherKind.KO, OtherKind.PR]
APPROVED: Final = (
    '[approvals]\nretain-full-dates = "ethics board, 12 May 2026"\nretain-institution = "the same board"\n'
)
DEVICE: Final = Policy.parse('name = "d"\nheads = "agreement"\noptions = ["retain-device", "retain-modified-dates"]')
PLACE: Final = Policy.parse(f'name = "i"\nheads = "agreement"\noptions = ["retain-institution"]\n{APPROVED}')
DATES: Final = Policy.parse(f'name = "f"\nheads = "agreement"\noptions = ["retain-full-dates"]\n{APPROVED}')


def parsed(octets: bytes) -> Dataset:
    """Read an output with the oracle."""
    return pydicom.dcmread(io.BytesIO(octets))


def marks_of(dataset: Dataset) -> list[str]:
    """List the codes of what is claimed."""
    return [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]


@pytest.mark.parametrize("kind", WITHOUT_PIXELS)
def test_no_planted_value_is_left_in_reports_and_presentation_states(kind: OtherKind) -> None:
    """Texts, names, dates, UIDs and codes of a content tree; what is drawn on an image goes as a whole."""
    file, tokens = planted_file(kind)
    assert find_planted(deidentified(file, reviewed(kind.value)), tokens) == []


@pytest.mark.parametrize("kind", [*WITHOUT_PIXELS, OtherKind.PDF])
def test_documents_are_refused_unless_a_policy_names_and_cleans_them(kind: OtherKind) -> None:
    """Neither a review nor the option alone lets a report through; what is inside a document nobody can clean."""
    file, _ = planted_file(kind, depth=0, outside=False)
    named = f'[[reviews]]\nsop_class = "{kind.value}"\nreview = "two readers, 200 objects"'
    policies = [RESEARCH, reviewed("1.2.3"), Policy.parse(f'name = "a"\nheads = "refuse"\n{named}')]
    for policy in [*policies, *([reviewed(kind.value)] if kind is OtherKind.PDF else [])]:
        with pytest.raises(RefusedError, match="sop-class"):
            deidentified(file, policy)


def measured(code: tuple[str, str], number: str, unit: str) -> Dataset:
    """Make a content item with a number."""
    item, name, value, units = Dataset(), Dataset(), Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = *code, "what it is"
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", "unit"
    value.NumericValue, value.MeasurementUnitsCodeSequence = number, Sequence([units])
    item.RelationshipType, item.ValueType = "CONTAINS", "NUM"
    item.ConceptNameCodeSequence, item.MeasuredValueSequence = Sequence([name]), Sequence([value])
    return item


@pytest.mark.parametrize(
    ("number", "unit", "stays"),
    [
        ("51", "a", True),
        ("89.5", "a", True),
        ("90", "a", False),
        ("600", "mo", True),
        ("1100", "mo", False),
        ("4000", "wk", True),
        ("33000", "d", False),
        ("-1", "a", False),
        ("50", "furlong", False),
    ],
)
def test_the_age_in_a_report_is_one_of_below_90(number: str, unit: str, *, stays: bool) -> None:
    """It is a patient characteristic there as in the header; in units that nobody knows it goes."""
    report, _ = planted(OtherKind.SR, depth=0, outside=False)
    report.ContentSequence = Sequence([measured(("121033", "DCM"), number, unit)])
    out = parsed(deidentified(written(report), reviewed(OtherKind.SR.value)))
    assert [item.ValueType for item in out.ContentSequence] == ["NUM"] * stays


@pytest.mark.parametrize("tag", [0x00400440, 0x00400612, 0x0040A730])
def test_a_content_item_tells_no_more_elsewhere_than_in_a_report(tag: int) -> None:
    """Images have such items too, with number and unit beside the name: protocols, specimens, what was injected."""

    def item(value: bytes, number: bytes, unit: bytes) -> bytes:
        name = encode(head(0x00080100, b"SH"), value) + encode(head(0x00080102, b"SH"), b"DCM")
        units = encode(head(0x00080100, b"SH"), unit) + encode(head(0x00080102, b"SH"), b"UCUM")
        parts = [encode_items(head(0x004008EA, b"SQ"), [units]), encode_items(head(0x0040A043, b"SQ"), [name])]
        return b"".join(parts) + encode(head(0x0040A30A, b"DS"), number)

    items = [item(*each) for each in ITEMS]
    file = with_elements(encode_items(head(tag, b"SQ"), items))
    for policy, left in [(RESEARCH, [b"51", b"12.5"]), (PLACE, [b"12.5"])]:
        out = parsed(deidentified(file, policy))[tag]
        assert [str(kept.NumericValue).encode() for kept in out] == left


ITEMS: Final = [
    (b"121033", b"51", b"a"),  # Subject Age
    (b"121033", b"93", b"a"),
    (b"111538", b"92", b"a"),  # Age at Occurrence
    (b"111524", b"none", b"a"),
    (b"999999", b"70", b"kg"),  # of nobody's
    (b"121207", b"12.5", b"mm"),  # Height
]


def test_a_sex_in_a_report_needs_the_option_whatever_it_is_called() -> None:
    """Under a concept that nobody knows, too; other codes there are findings, and stay."""
    report, _ = planted(OtherKind.SR, depth=0, outside=False)
    report.ContentSequence = Sequence([coded("263495000", "M"), coded("263495000", "111040"), coded("121071", "F")])
    file, with_option = written(report), reviewed(OtherKind.SR.value)
    without = dataclasses.replace(with_option, options=with_option.options - {Option.PATIENT_CHARACTERISTICS})
    left = [
        [item.ConceptCodeSequence[0].CodeValue for item in parsed(deidentified(file, policy)).ContentSequence]
        for policy in (with_option, without)
    ]
    assert left == [["M", "111040", "F"], ["111040"]]


def test_what_people_type_in_place_of_a_code_keeps_reviewed_words() -> None:
    """A therapy has words, a graphic layer and a retired number of an image none."""
    typed = (0x00180039, b"BONE FOR JOSEPHA"), (0x00203402, b"A4711"), (0x00700002, b"FOR JOSEPHA")
    out = parsed(deidentified(with_elements(*(encode(head(tag, b"CS"), value) for tag, value in typed))))
    assert [out.get(tag) and out[tag].value for tag, _ in typed] == ["BONE", None, None]


def test_when_a_machine_was_calibrated_does_not_move_in_a_report() -> None:
    """Reports of dose have it, of each patient the same."""
    report, _ = planted(OtherKind.SR, depth=0, outside=False)
    report.ContentSequence = Sequence([dated("113723"), dated("111526")])
    out = parsed(deidentified(written(report), reviewed(OtherKind.SR.value)))
    assert [item.DateTime for item in out.ContentSequence] == ["20160314123251"]


def dated(concept: str) -> Dataset:
    """Make a content item with a moment."""
    item, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = concept, "DCM", "what it is"
    item.RelationshipType, item.ValueType, item.DateTime = "CONTAINS", "DATETIME", "20180312101530"
    item.ConceptNameCodeSequence = Sequence([name])
    return item


def coded(concept: str, code: str) -> Dataset:
    """Make a content item whose value is a code."""
    item, name, value = Dataset(), Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = concept, "DCM", "what it is"
    value.CodeValue, value.CodingSchemeDesignator, value.CodeMeaning = code, "DCM", "value"
    item.RelationshipType, item.ValueType = "CONTAINS", "CODE"
    item.ConceptNameCodeSequence, item.ConceptCodeSequence = Sequence([name]), Sequence([value])
    return item


def test_characteristics_in_a_report_need_their_option() -> None:
    """A weight stays under it, and a measured length always does; dates under concepts that nobody knows go."""
    report, _ = planted(OtherKind.SR, depth=0, outside=False)
    dated = Dataset()
    dated.RelationshipType, dated.ValueType, dated.Date = "CONTAINS", "DATE", "19501231"
    bare = measured(("121033", "DCM"), "51", "a")
    del bare.MeasuredValueSequence
    items = [measured(("29463-7", "LN"), "70", "kg"), measured(("410668003", "SCT"), "12.5", "mm"), dated, bare]
    report.ContentSequence = Sequence(items)
    file, with_option = written(report), reviewed(OtherKind.SR.value)
    without = Policy.parse(
        'name = "a"\nheads = "refuse"\noptions = ["clean-structured-content"]\n'
        f'[[reviews]]\nsop_class = "{OtherKind.SR.value}"\nreview = "two readers, 200 objects"'
    )
    kept = [
        [item.MeasuredValueSequence[0].NumericValue for item in parsed(deidentified(file, policy)).ContentSequence]
        for policy in (with_option, without)
    ]
    assert kept == [["70", "12.5"], ["12.5"]]
    assert "113104" in marks_of(parsed(deidentified(file, without)))


def test_a_retained_device_keeps_its_names_and_uid_and_its_dates_go() -> None:
    """One that stayed would tell the shift; one that moved, to whoever knows another patient of the machine."""
    uid = encode(head(0x00181002, b"UI"), b"1.2.3.99", b"\0")
    names = [(0x00081010, b"SH", b"CT07 East"), (0x00181000, b"LO", b"SN 4711-889"), (0x00181200, b"DA", b"20180101")]
    out = parsed(deidentified(with_elements(uid, *(encode(head(tag, vr), value) for tag, vr, value in names)), DEVICE))
    assert (out.StationName, out.DeviceSerialNumber, out.DeviceUID) == ("CT07 East", "SN 4711-889", "1.2.3.99")
    assert "DateOfLastCalibration" not in out
    assert "113109" in marks_of(out)


def test_dates_that_stand_in_books_do_not_move() -> None:
    """From which day a table of PS3.16 is, everybody can look up; of a source, everybody who was treated with it."""
    version = encode(head(0x00080106, b"DT"), b"20020904000000")
    coded = encode(head(0x00080100, b"SH"), b"818981001") + encode(head(0x00080102, b"SH"), b"SCT") + version
    source = encode(head(0x300A022C, b"DA"), b"20180301") + encode(head(0x300A022E, b"TM"), b"101500")
    file = with_elements(
        encode_items(head(0x00082218, b"SQ"), [coded]), encode_items(head(0x300A0210, b"SQ"), [source])
    )
    for policy, version_left, source_left in [(RESEARCH, DUMMY, "19000101"), (DATES, "20020904000000", "20180301")]:
        out = parsed(deidentified(file, policy))
        assert out.AnatomicRegionSequence[0].ContextGroupVersion == version_left
        assert out.SourceSequence[0].SourceStrengthReferenceDate == source_left


DUMMY: Final = "19000101000000"


def test_what_a_device_is_called_may_stand_in_what_was_removed() -> None:
    """A retained serial number is no residue of the private element that repeats it."""
    serial = encode(head(0x00181000, b"LO"), b"SN4711889")
    private = encode(head(0x00090010, b"LO"), b"ACME") + encode(head(0x00091001, b"LO"), b"SN4711889 in room 7")
    assert parsed(deidentified(with_elements(serial, private[:0] + private), DEVICE)).DeviceSerialNumber == "SN4711889"


@pytest.mark.parametrize("uid", [b"1.2.3.84729103", b"1.2.3.84729103001", b"1.2.847.29103.1"])
def test_a_device_uid_with_a_number_of_the_patient_in_it_is_not_retained(uid: bytes) -> None:
    """As an arc of it, within one, or over several."""
    numbered = encode(head(0x00100020, b"LO"), b"84729103"), encode(head(0x00181002, b"UI"), uid, b"\0")
    assert "DeviceUID" not in parsed(deidentified(with_elements(*numbered), DEVICE))


@pytest.mark.parametrize("name", [b"Doe's scanner", b"jane", b"H1234567", b"1234567", b"CT \xff"])
def test_a_device_called_like_a_patient_is_not_retained(name: bytes) -> None:
    """Neither words of a name nor a record number, nor what is no text."""
    station = encode(head(0x00081010, b"SH"), name)
    patient = encode(head(0x00100020, b"LO"), name if name.isdigit() else b"H1234567")
    assert "StationName" not in parsed(deidentified(with_elements(station, patient), DEVICE))


LATIN: Final = encode(head(0x00080005, b"CS"), b"ISO_IR 100")
NO_SET: Final = encode(head(0x00080005, b"CS"), b"")


@pytest.mark.parametrize(
    ("name", "station"),
    [
        (b"M\xfcller^Erika", b"CT MULLER"),
        (b"M\xfcller^Erika", b"CT MUELLER"),
        (b"M\xfcller^Erika", b"erika"),
        (b"O'Hannigan^Jo", b"OHANNIGAN-PC"),
        (b"Vandermeulen^Jo", b"CTVANDERMEULEN"),
        (b"Doe^Jane^M^^\\Lee^Jane", b"Lee"),
    ],
)
@pytest.mark.parametrize("declared", [LATIN, NO_SET])
def test_a_device_called_like_a_patient_in_another_spelling_is_not_retained(
    name: bytes, station: bytes, declared: bytes
) -> None:
    """Accents go from the text, so they go from the name as well; who sends Latin 1 often does not say so."""
    named = encode(head(0x00100010, b"PN"), name), encode(head(0x00081010, b"SH"), station)
    assert "StationName" not in parsed(deidentified(with_elements(declared, *named), DEVICE))


@pytest.mark.parametrize(
    ("name", "station"),
    [("ヤマダ^タロウ", b"CT YAMADA"), ("홍길동", b"GILDONG-PC"), ("王^小东", b"XIAODONG"), ("Иванов^Ян", b"IVANOV")],
)
def test_a_device_called_like_a_patient_in_another_script_is_not_retained(name: str, station: bytes) -> None:
    """The name of a machine is in Latin letters; also where the item of another patient has characters of its own."""
    own, called = encode(head(0x00080005, b"CS"), b"ISO_IR 192"), encode(head(0x00081010, b"SH"), station)
    named = encode(head(0x00100010, b"PN"), name.encode())
    assert "StationName" not in parsed(deidentified(with_elements(own, named, called), DEVICE))
    other = encode_items(head(0x00081115, b"SQ"), [own + encode(head(0x00101001, b"PN"), name.encode())])
    assert "StationName" not in parsed(deidentified(with_elements(LATIN, other, called), DEVICE))
    assert "StationName" in parsed(deidentified(with_elements(LATIN, called), DEVICE))


def test_a_device_called_like_its_institution_is_retained_with_that_alone() -> None:
    """Whose machine it is, only another option lets out; what any institution is called tells nothing."""
    place = encode(head(0x00080080, b"LO"), b"Klinikum Rabenfeld CT")
    street = encode(head(0x00080081, b"ST"), "Krähwinkel, Weg 7".encode())
    both = dataclasses.replace(DEVICE, options=DEVICE.options | {Option.INSTITUTION})
    for station in (b"RABENFELD-CT1", b"rabenfeldct", b"CT KRAEHWINKEL"):
        called = with_elements(place, street, encode(head(0x00081010, b"SH"), station))
        assert "StationName" not in parsed(deidentified(called, DEVICE))
        assert parsed(deidentified(called, both)).StationName == station.decode()
    called = with_elements(place, street, encode(head(0x00081010, b"SH"), b"CT07 Weg"))
    assert parsed(deidentified(called, DEVICE)).StationName == "CT07 Weg"


@pytest.mark.parametrize("station", [b"CT 12-34-567", b"CT1234567", b"0001234567", b"1.2.840.113619.2.55.3.1"])
@pytest.mark.parametrize("patient_id", [b"12-34-567", b"1234567", b"0001234567"])
def test_a_device_called_like_a_number_or_an_instance_is_not_retained(station: bytes, patient_id: bytes) -> None:
    """Whatever parts the number, and whatever stands before it; what looks like a UID may be that of the image."""
    patient, name = encode(head(0x00100020, b"LO"), patient_id), encode(head(0x00081010, b"SH"), station)
    assert "StationName" not in parsed(deidentified(with_elements(patient, name), DEVICE))
    assert "StationName" in parsed(deidentified(with_elements(name[:8] + b"CT7 EAST".ljust(len(name) - 8)), DEVICE))


@pytest.mark.parametrize("station", [b"19501231", b"CT 1950.12.31", b"19501231083000"])
def test_a_device_called_by_the_birth_date_is_not_retained(station: bytes) -> None:
    """No option keeps that date, so none keeps it in another place."""
    birth, name = encode(head(0x00100030, b"DA"), b"19501231"), encode(head(0x00081010, b"SH"), station)
    assert "StationName" not in parsed(deidentified(with_elements(birth, name), DEVICE))


def test_a_device_called_like_somebody_deep_inside_is_not_retained() -> None:
    """Other numbers of the patient stand in a sequence, and so do names."""
    other = encode(head(0x00100020, b"LO"), b"K-4471902"), encode(head(0x00101001, b"PN"), b"Vandermeulen^Jo")
    inner = encode_items(head(0x00081140, b"SQ"), [other[1], b""])
    outer = encode_items(head(0x00101002, b"SQ"), [other[0] + encode_items(head(0x00101100, b"SQ"), [inner])])
    for station in (b"CT K4471902", b"Vandermeulen"):
        name = encode(head(0x00081010, b"SH"), station)
        assert "StationName" not in parsed(deidentified(with_elements(outer, name), DEVICE))
        assert "StationName" in parsed(deidentified(with_elements(name), DEVICE))


def test_a_device_uid_that_is_none_is_not_retained() -> None:
    """It may be anything."""
    assert "DeviceUID" not in parsed(deidentified(with_elements(encode(head(0x00181002, b"UI"), b"Jane Doe")), DEVICE))


def test_a_retained_institution_keeps_its_name_in_ascii() -> None:
    """What comes out is ASCII: accents go, other scripts go as a whole; its codes are cleaned as all are."""
    latin = encode(head(0x00080005, b"CS"), b"ISO_IR 100")
    code = [encode(head(0x00080100, b"SH"), b"4711"), encode(head(0x00080102, b"SH"), b"99X")]
    place = encode_items(head(0x00080082, b"SQ"), [b"".join(code)])
    name, street = (
        encode(head(0x00080080, b"LO"), "Universit\xe4t".encode("latin_1")),
        encode(head(0x00080081, b"ST"), b"Street 1"),
    )
    out = parsed(deidentified(with_elements(latin, name, street, place), PLACE))
    assert (out.InstitutionName, out.InstitutionAddress) == ("Universitat", "Street 1")
    assert out.InstitutionCodeSequence[0].CodeValue == "REMOVED"
    assert marks_of(out) == ["113100", "113112"]
    greek = encode(head(0x00080080, b"LO"), b"\xc1\xc2")
    assert "InstitutionName" not in parsed(
        deidentified(with_elements(encode(head(0x00080005, b"CS"), b"ISO_IR 126"), greek), PLACE)
    )


def test_full_dates_stay_as_they_are_and_say_so() -> None:
    """What is no date goes, and a birth date is none of those that the option keeps."""
    birth = encode(head(0x00100030, b"DA"), b"19500101")
    wrong = encode(head(0x00080021, b"DA"), b"yesterday")
    moments = [encode(head(0x0008002A, b"DT"), b"20180312101530"), encode(head(0x00189074, b"DT"), b"noon")]
    out = parsed(deidentified(with_elements(birth, wrong, *moments), DATES))
    assert (out.StudyDate, out.StudyTime, out.AcquisitionDateTime) == ("20180312", "101530.250", "20180312101530")
    assert not out.PatientBirthDate
    assert "SeriesDate" not in out
    assert out.FrameAcquisitionDateTime == "19000101000000"
    assert out.LongitudinalTemporalInformationModified == "UNMODIFIED"
    assert marks_of(out) == ["113100", "113106"]


def test_a_reviewed_class_passes_as_it_is_but_claims_no_clean_pixels() -> None:
    """A human looked at a sample; what says that text is burned in is refused all the same."""
    capture = encode(head(0x00080016, b"UI"), OtherKind.SC.value.encode(), b"\0")
    policy = reviewed(OtherKind.SC.value)
    out = parsed(deidentified(with_elements(capture), policy))
    assert "113101" not in marks_of(out)
    burned = encode(head(0x00280301, b"CS"), b"YES")
    with pytest.raises(RefusedError) as caught:
        deidentified(with_elements(capture, burned), policy)
    assert caught.value.reason is Reason.BURNED_IN


def test_a_review_is_part_of_what_is_signed() -> None:
    """So is who approved what."""
    text = 'name = "a"\nheads = "refuse"\noptions = ["retain-full-dates"]\n' + APPROVED
    texts = [text, text.replace("12 May", "13 May"), text + '[[reviews]]\nsop_class = "1.2"\nreview = "two readers"\n']
    assert len({Policy.parse(each).digest for each in texts}) == 3


@pytest.mark.parametrize(
    ("code", "number", "unit"),
    [
        (("27113001", "SNM3"), "81", "kg"),
        (("F-008EC", "99SDM"), "81", "kg"),
        (("AGE", "99SITE"), "93", "a"),
        (("PAT-NO", "99SITE"), "4711", "1"),
    ],
)
def test_a_number_that_tells_of_the_patient_goes_whatever_its_concept_is_called(
    code: tuple[str, str], number: str, unit: str
) -> None:
    """Old names of SNOMED are the same concepts; of one that nobody knows the number says more than the rest."""
    report, _ = planted(OtherKind.SR, depth=0, outside=False)
    report.ContentSequence = Sequence([measured(code, number, unit)])
    without = Policy.parse(
        'name = "a"\nheads = "refuse"\noptions = ["clean-structured-content"]\n'
        f'[[reviews]]\nsop_class = "{OtherKind.SR.value}"\nreview = "two readers, 200 objects"'
    )
    assert not parsed(deidentified(written(report), without)).ContentSequence


def test_what_is_no_row_of_the_table_but_tells_of_the_patient_goes() -> None:
    """A faith, the hospital's numbers of studies, and what is made of size and weight, which needs their option."""
    others = [
        encode(head(0x00100035, b"CS"), b"HEBREW"),
        encode(head(0x002000AA, b"IS"), b"4711"),
        encode(head(0x00201070, b"IS"), b"4711"),
    ]
    index = encode(head(0x00101022, b"DS"), b"31.5")
    plain = Policy.parse('name = "p"\nheads = "agreement"')
    kept = [parsed(deidentified(with_elements(*others, index), policy)) for policy in (RESEARCH, plain)]
    assert [out.get("PatientBodyMassIndex") for out in kept] == [31.5, None]
    assert not any(tag in out for out in kept for tag in (0x00100035, 0x002000AA, 0x00201070))


@pytest.mark.parametrize(
    "text", ["CT 20180312", "SN 12.03.2018", "built 12 MAR 2018", "SN R-556677", "SN P8812", "DOEJANE", "JANEDOE 1"]
)
def test_a_retained_device_holds_no_date_of_the_study_and_no_number_that_leads_to_it(text: str) -> None:
    """Dates would tell how far all others moved; numbers of orders lead to the patient as his own does."""
    order = encode(head(0x00401001, b"SH"), b"R556677") + encode(head(0x00402016, b"LO"), b"P8812")
    file = with_elements(
        encode(head(0x00181000, b"LO"), text.encode()),
        encode_items(head(0x00400275, b"SQ"), [order]),
    )
    assert "DeviceSerialNumber" not in parsed(deidentified(file, DEVICE))


def test_a_retained_uid_holds_no_number_of_the_patient() -> None:
    """Some are made of a root and the number."""
    uid = encode(head(0x00181002, b"UI"), b"1.2.3.84729103", b"\0")
    numbered = encode(head(0x00100020, b"LO"), b"84729103")
    assert "DeviceUID" in parsed(deidentified(with_elements(uid), DEVICE))
    assert "DeviceUID" not in parsed(deidentified(with_elements(uid, numbered), DEVICE))


def test_a_name_is_no_word_of_a_technique_that_somebody_typed() -> None:
    """Content Label and the like; what machines write of their maker stays, though somebody is called Philips."""
    named = encode(head(0x00100010, b"PN"), b"Gray^Philips")
    label = encode(head(0x00700080, b"CS"), b"GRAY HEART")
    maker = encode(head(0x00080070, b"LO"), b"Philips")
    out = parsed(deidentified(with_elements(named, label, maker)))
    assert (out.ContentLabel, out.Manufacturer) == ("HEART", "Philips")
