"""The people in the demonstration's images: patients who never lived, and every string that would give them away.

Each name, number and word here is made up and meant to occur nowhere else, so that finding one outside the hospital
zone is never an accident. All study dates lie within one year: a date moved back by 52 weeks or more is none of them.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

SHORTEST_IDENTIFIER: Final = 6
"""Bytes in UTF-8: anything shorter could turn up in ciphertext by chance."""

_WORDS = re.compile(r"[^\W_]+")
_NOT_IDENTIFYING = frozenset({"key", "character_set", "sex", "study_time"})
_NAMES = frozenset({"name", "referring", "operator", "mother"})
_WORDY = _NAMES | {"address", "institution", "institution_address", "department"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One patient with one study, as a header writes it: names with ``^`` and ``=``, dates as YYYYMMDD."""

    key: str
    """How the demonstration calls the patient; the name of a folder, and no identifier."""
    character_set: str
    name: str
    sex: str
    birth_date: str
    mother: str
    patient_id: str
    issuer: str
    other_patient_id: str
    address: str
    telephone: str
    accession: str
    study_id: str
    study_date: str
    study_time: str
    requested_procedure: str
    scheduled_step: str
    admission: str
    referring: str
    referring_telephone: str
    operator: str
    operator_id: str
    institution: str = "Barnabasgasthuis Kortewaterland"
    institution_address: str = "Zwanenbloemkade 318, 7419KW Kortewaterland"
    department: str = "Beeldvormingsvleugel"
    station: str
    serial: str
    detector: str

    @property
    def family(self) -> str:
        """The family name, in Latin letters."""
        return self.name.split("=")[0].split("^")[0]

    @property
    def given(self) -> str:
        """The given name, in Latin letters."""
        return self.name.split("=")[0].split("^")[1]

    @property
    def comment(self) -> str:
        """Free text as people type it: names in capitals and in running text, numbers, a telephone."""
        return (
            f"Pt {self.given} {self.family.upper()} (MRN {self.patient_id}) called from {self.telephone}; "
            f"see {self.accession}, cc Dr {self.referring.split('^')[0]}"
        )

    def identifiers(self) -> frozenset[str]:
        """Every string that points to this patient, hospital or staff: whole values and their telling parts."""
        found: set[str] = set()
        for field in dataclasses.fields(self):
            if field.name in _NOT_IDENTIFYING:
                continue
            value: str = getattr(self, field.name)
            found.add(value)
            if field.name in _NAMES:
                found.update(re.split(r"[\^=]", value))
            if field.name in _WORDY:
                found.update(_WORDS.findall(value))
        found.update(word.upper() for word in (*_WORDS.findall(self.name), *_WORDS.findall(self.referring)))
        return frozenset(text for text in found if len(text.encode()) >= SHORTEST_IDENTIFIER)


CHEST: Final = Person(
    key="chest",
    character_set="ISO_IR 100",
    name="Güldenzöpfli^Ännekathrein^Zoëlina",
    sex="F",
    birth_date="19370213",
    mother="Pflüghäuserin",
    patient_id="KWL-7714093-5",
    issuer="KORTEWATER-MPI",
    other_patient_id="BSN-618420937",
    address="Zilverschoonlaan 418, 7423PX Kortewaterland",
    telephone="+31-555-0148-293",
    accession="ACC20417731904",
    study_id="STD-88123-CH",
    study_date="20190312",
    study_time="093214.482913",
    requested_procedure="RPQ-5530127-C",
    scheduled_step="SPS-5530128-C",
    admission="ADM-90417726",
    referring="Haverkampveld^Diederikje",
    referring_telephone="+31-555-0177-410",
    operator="Oostenbrugghe^Willemijntje",
    operator_id="OPR-WOB-44172",
    station="KWLCT-07-OOST",
    serial="SN-KWL-8841725",
    detector="DET-KWL-330917",
)

KNEE: Final = Person(
    key="knee",
    character_set="ISO_IR 192",
    name="Katsurano^Hinakomi=桂乃^雛子実=かつらの^ひなこみ",
    sex="F",
    birth_date="19530824",
    mother="Kurobanemori=黒羽森",
    patient_id="KWL-2280416-1",
    issuer="KORTEWATER-MPI",
    other_patient_id="BSN-702915384",
    address="Koekoeksbloemhof 27, 7431ZR Kortewaterland",
    telephone="+31-555-0162-807",
    accession="ACC20417750283",
    study_id="STD-88517-KN",
    study_date="20190605",
    study_time="141502.118240",
    requested_procedure="RPQ-5588204-K",
    scheduled_step="SPS-5588205-K",
    admission="ADM-90483391",
    referring="Szczęśniakowicz^Bożydarek",
    referring_telephone="+31-555-0119-638",
    operator="Thorbjörnsdóttir^Guðfinnabjörg",
    operator_id="OPR-GTB-51903",
    station="KWLMR-02-ZUID",
    serial="SN-KWL-1170392",
    detector="COIL-KWL-78125",
)

ABDOMEN: Final = Person(
    key="abdomen",
    character_set="ISO_IR 100",
    name="Vandersloottema^Mariekejet^Jozefientje^Jonkvr^Cmdrsse",
    sex="F",
    birth_date="19681107",
    mother="Wolvenbergsma",
    patient_id="KWL-4107729-8",
    issuer="KORTEWATER-MPI",
    other_patient_id="BSN-835106472",
    address="Duizendbladpad 1903, 7440HT Kortewaterland",
    telephone="+31-555-0183-552",
    accession="ACC20417768815",
    study_id="STD-89002-AB",
    study_date="20190917",
    study_time="110847.903351",
    requested_procedure="RPQ-5601733-A",
    scheduled_step="SPS-5601734-A",
    admission="ADM-90551208",
    referring="Quistorpenning^Lodewijkje",
    referring_telephone="+31-555-0126-074",
    operator="Ravesteijnders^Eglantientje",
    operator_id="OPR-ERV-60218",
    station="KWLMR-05-WEST",
    serial="SN-KWL-9925610",
    detector="COIL-KWL-90442",
)

SAMPLES: Final = Person(
    key="samples",
    character_set="ISO_IR 100",
    name="Brzezinkowskij^Leszekmirus",
    sex="M",
    birth_date="19840502",
    mother="Grzybowianka",
    patient_id="KWL-6093318-2",
    issuer="KORTEWATER-MPI",
    other_patient_id="BSN-914473025",
    address="Teunisbloemsteeg 66, 7457QD Kortewaterland",
    telephone="+31-555-0195-316",
    accession="ACC20417783349",
    study_id="STD-89340-SA",
    study_date="20191106",
    study_time="161933.207718",
    requested_procedure="RPQ-5644918-S",
    scheduled_step="SPS-5644919-S",
    admission="ADM-90607714",
    referring="Eikenhorstmann^Theodorickus",
    referring_telephone="+31-555-0108-961",
    operator="Fitzmaurington^Perpetuanne",
    operator_id="OPR-PFM-73350",
    station="KWLXX-09-NOORD",
    serial="SN-KWL-5538047",
    detector="DET-KWL-447203",
)

ABSENT: Final = Person(
    key="absent",
    character_set="ISO_IR 100",
    name="Ruigrokveldsen^Cornelisjanne",
    sex="M",
    birth_date="19991230",
    mother="Appelternhoven",
    patient_id="KWL-8852041-7",
    issuer="KORTEWATER-MPI",
    other_patient_id="BSN-447190263",
    address="Wateraardbeiweg 2084, 7468BN Kortewaterland",
    telephone="+31-555-0174-429",
    accession="ACC20417799527",
    study_id="STD-89771-NO",
    study_date="20191203",
    study_time="082651.660427",
    requested_procedure="RPQ-5690052-N",
    scheduled_step="SPS-5690053-N",
    admission="ADM-90688125",
    referring="Middendorpius^Hubertiana",
    referring_telephone="+31-555-0151-783",
    operator="Oudekerkhoven^Saskiadora",
    operator_id="OPR-SOK-82941",
    station="KWLCT-11-KELDER",
    serial="SN-KWL-7260983",
    detector="DET-KWL-559118",
)
"""Not on the inclusion list: nothing of this patient may ever appear."""

PEOPLE: Final = (CHEST, KNEE, ABDOMEN, SAMPLES, ABSENT)
