"""The reviewed words that may stay in free text: of what a text says, only words that are on a list here come out.

Free text holds names wherever a human can type one, so nothing of it is trusted as a whole. A text is taken apart at
spaces and punctuation; a part stays when all its letters are words of the list and its digits are few. What remains
tells sequence, contrast, region, kernel, coil and tracer to a pipeline, and nothing of a person.
"""

from __future__ import annotations

import re
from typing import Final

_PART: Final = re.compile(rb"[A-Za-z0-9.+*]+")
_PUNCTUATION: Final = re.compile(rb"[\x20-\x2f\x3a-\x40\x5b\x5d-\x60\x7b-\x7e]*")
_PIECE: Final = re.compile(rb"[a-z]+|[0-9]+")
_MAX_DIGITS: Final = 3
_LONG_NUMBERS: Final = frozenset({b"b", b"te", b"tr", b"ti"})
_MAX_LONG_DIGITS: Final = 4
_LETTERS_BEFORE_NUMBERS: Final = frozenset(b"t b h i d v f r s u q e g x y z".split())
_NUMBERED: Final = re.compile(rb"\d\.\d+\.\d")
"""More than one point: a date, a UID or a record number, but in versions."""
_AGED: Final = re.compile(rb".*\dy(?![a-z]).*|[dfw]0?(?:9\d|1[0-3]\d)|0?(?:9\d|1[0-3]\d)[dfw]")
"""45Y, and F92 or 103W, above 89 with a letter for a sex. Yttrium is Y90."""

TECHNIQUE: Final = frozenset(
    b"""
    mri ct pet mr pt cta mra mrv mrcp spect dwi dti adc fa trace colfa tensor diffusion perfusion pwi asl pcasl
    pasl bold fmri rest resting task eeg swi swan qsm mip minip mpr recon reformat vrt phase magnitude mag pha
    real imaginary fieldmap fmap gre se tse fse ffe tfe ste ssfp bssfp trufi fiesta ciss space cube vista mprage
    rage bravo spgr fspgr flash vibe lava thrive dixon ideal flair stir spair fatsat fs nofs wfi spir tirm haste
    ssfse hasteirm blade propeller multivane epi epse epfid tfl fl tfi tir spc spcir medic merge qalas ep fid ns d
    me mb sms grappa sense asset arc ipat cs compressed svs csi press steam laser slaser spectroscopy cine tagging
    cardiac gated trigger triggered ecg resp respiratory breath hold breathhold free breathing navigator nav
    inversion recovery localizer localiser scout survey topogram surview scanogram loc plan planning sag sagittal
    cor coronal ax axial tra transverse transversal obl oblique iso isotropic thin thick slice slices slab vol
    volume pre post native plain contrast gd gad gadolinium dotarem prohance gadovist omniscan magnevist
    multihance primovist eovist km nce ce dce dsc dyn dynamic arterial art venous ven portal delayed delay late
    early enhancement lge wash phases bolus test tracking care timing run sequence series scan standard soft hard
    bone lung lungs mediastinum abdomen abdominal thorax thoracic chest pelvis pelvic head brain neuro neck
    cervical lumbar spine cspine tspine lspine wb whole body wholebody knee hip shoulder elbow wrist hand foot
    ankle leg thigh liver kidney kidneys spleen pancreas prostate breast heart coronary aorta aortic carotid
    carotids renal pulmonary angio angiography venography colon bowel bladder uterus ovary rectum rectal femur
    tibia skull sinus sinuses orbit orbits pituitary iac temporal hippocampus hippocampal cerebellum brainstem
    optic nerve thyroid esophagus trachea left right bilateral lt rt l r lower upper extremity low high dose res
    resolution quality fast ultra short long te tr ti w wi pd pdw t map maps image images average avg mean std sum
    subtraction sub diff ratio raw filtered unfiltered smooth corrected uncorrected attenuation correction ac nac
    ctac mrac umap osem tof psf fbp bp iterative asir safire admire idose imr aidr fbpasir suv static emission
    transmission fdg fluorodeoxyglucose fluorine naf psma dotatate dotatoc dotanoc florbetapir florbetaben
    flutemetamol flortaucipir pib choline fluciclovine flt fet dopa methionine rubidium ammonia water acetate
    gallium ga carbon nitrogen oxygen lutetium ptv ctv gtv itv oar external target lens eye eyes chiasm cord
    spinal parotid mandible larynx cochlea lad ventricle atrium femoral rtplan boost imrt vmat beam field setup
    tumor tumour lesion node nodes edema necrosis segmentation segment label mask gray grey white matter csf
    tissue background foreground gm wm mm cm ms sec s min hz khz mt tesla kv kev kvp mas ma mev nex nsa bw dir
    directions dirs ap pa lr rl hf fh is si feet first supine prone
    """.split()
)
"""Words of techniques, regions, contrast and tracers: kept in descriptors and in technical attributes."""

EQUIPMENT: Final = frozenset(
    b"""
    siemens healthineers healthcare philips medical systems ge general electric toshiba canon hitachi fujifilm
    neusoft united imaging bruker biospin elscint picker marconi adac mediso gmbh ag inc ltd nederland corporation
    magnetom skyra prisma fit avanto aera vida lumina sola altea terra verio trio triotim symphony sonata espree
    essenza allegra biograph mmr mct vision quadra horizon truepoint somatom definition sensation emotion flash
    force edge drive go top all up now perspective naeotom alpha confidence symbia achieva ingenia intera ambition
    elition panorama gyroscan brilliance ict ingenuity iqon mx gemini vereos allegro incisive signa hdxt hdx hde
    excite discovery optima revolution lightspeed brightspeed vct artist architect premier pioneer voyager advance
    apex evo aquilion one prime genesis lightning alexion activion vantage titan orian galan elan aquiduo oasis
    echelon scenaria umr uct upmi syngo software release numaris lx va vb vc vd ve xa hd dv mr ct pet nm apps sms
    body matrix coil array phased head neck torso spine breast knee flex flexible large small medium birdcage quad
    quadrature volume surface channel ch hea hep nek bo sp tx rx txrx pa posterior anterior hns hna hnu ctl brain
    cardiac shoulder wrist foot extremity loop standard std soft detail lung bone boneplus chst ultra lungs sharp
    smooth very fc fl br bv hr hv ht qr sa sb hf uh ub yb yc yd ye bl bf fbp idose imr asir deepir aice aidr
    firstlevel strong mild enh bodystd helical spiral axial sequential continuous cine step shoot
    """.split()
)
"""Names of makers, models, coils and kernels: kept in the attributes of equipment only, since some are surnames."""


UNITS: Final = frozenset(b"hu us od pct ed edw z eff hgml mgml iod cbf cbv mtt bqml suv".split())
"""Units of rescaled values (PS3.3 C.11.1.1.2)."""


def clean(text: bytes, words: frozenset[bytes]) -> tuple[bytes, bytes]:
    """Keep the parts of a text that consist of listed words; gives them, and all the rest.

    A text of which all parts stay keeps its punctuation too.
    """
    kept: list[bytes] = []

    def sort_out(part: re.Match[bytes]) -> bytes:
        if not _is_listed(part[0].strip(b".").lower(), words):
            return part[0]
        kept.append(part[0])
        return b" "

    removed = _PART.sub(sort_out, text)
    if kept and _PUNCTUATION.fullmatch(removed):
        return text.strip(), b""
    return b" ".join(kept), removed


def _is_listed(part: bytes, words: frozenset[bytes]) -> bool:
    if part.isalpha():
        return part in words
    if words is not EQUIPMENT and (_NUMBERED.search(part) or _AGED.fullmatch(part)):
        return False
    pieces = _PIECE.findall(part)
    if not any(piece.isalpha() for piece in pieces):
        return False
    before = b""
    for piece in pieces:
        if piece.isdigit():
            if len(piece) > (_MAX_LONG_DIGITS if before in _LONG_NUMBERS else _MAX_DIGITS):
                return False
        elif piece not in words and not (len(pieces) > 1 and piece in _LETTERS_BEFORE_NUMBERS):
            return False
        before = piece
    return True


DESCRIPTORS: Final = frozenset(
    {
        0x00081030,  # Study Description
        0x0008103E,  # Series Description
        0x00180010,  # Contrast/Bolus Agent
        0x00181030,  # Protocol Name
        0x00181400,  # Acquisition Device Processing Description
        0x00321060,  # Requested Procedure Description
        0x00321070,  # Requested Contrast Agent
        0x00400007,  # Scheduled Procedure Step Description
        0x00400254,  # Performed Procedure Step Description
        0x30060002,  # Structure Set Label
        0x30060004,  # Structure Set Name
        0x30060026,  # ROI Name
        0x30060085,  # ROI Observation Label
        0x300A0002,  # RT Plan Label
        0x300A0003,  # RT Plan Name
    }
)
"""Attributes that Clean Descriptors keeps the listed words of; in all others a text goes as the Basic Profile says."""

CODE_STRINGS: Final = frozenset(
    b"""
    original derived primary secondary axial localizer localiser other none normal linear nonlinear yes no mixed
    true false volume distorted sampled resampled monochrome identity density thickness quantity static dynamic
    gated whole body head neck chest brain spine skull recumbent standing prone supine decubitus feet first
    sagittal coronal transverse oblique magnitude phase real imaginary single multi multiple uniform stress rest
    reprojection emission transmission simulation attenuation decay count rate image frame series gradient
    recovery inversion spin echo echoplanar research segmented spoiled steady state partial fourier half full both
    pure free direct isotropic diffusion direction bmatrix velocity angio temporal spectral spatial spectrum water
    fat product standard clinical service experimental commercial approved unapproved rejected beam field block
    wedge multileaf gantry treatment manual automatic semiautomatic binary fractional probability occupancy closed
    planar point open helical spiral sequence stationary modulated filter flat bowtie copper aluminum aluminium
    lead iodine barium tungsten rounded truncated calculated measured physical effective relative photon electron
    proton neutron carbon helium patient table couch plan planned recorded verified dose error gray percent
    cumulative organ target cavity external internal control irrad contour support avoidance bolus contrast agent
    marker registration isocenter axes frontal lateral left right medial unpaired male female adult child unknown
    lossy lossless unspecified native filtered smooth sharp soft bone lung kernel venous arterial delayed flow
    motion compensated breath hold respiratory cardiac trigger prospective retrospective realtime time corrected
    navigator
    """.split()
)
"""Words of defined terms in code strings (PS3.3), as far as they have four letters or more."""

FURTHER_CODE_STRINGS: Final = frozenset(
    b"""
    modified unmodified removed color blue iron projection plane curved mode level study read created operator
    rtdose rtimage waveform cardiology presentation composite selected complete completed container context code concept
    properties coordinates date datetime predecessor circle rectangular longitudinal risk norm wall
    """.split()
)
"""Such words that no label keeps: of what the engine writes, of palettes, of reports, and of types of images."""

TECHNICAL: Final = {
    0x00080070: EQUIPMENT,  # Manufacturer: every converter's first question
    0x00081090: EQUIPMENT,  # Manufacturer's Model Name: harmonisation of scanners
    0x00180024: TECHNIQUE,  # Sequence Name: diffusion directions and b-values of older Siemens
    0x00180031: TECHNIQUE,  # Radiopharmaceutical: which tracer
    0x00181020: EQUIPMENT,  # Software Versions: converters tell formats apart by it
    0x00181210: EQUIPMENT,  # Convolution Kernel: radiomics
    0x00181250: EQUIPMENT,  # Receive Coil Name
    0x00181251: EQUIPMENT,  # Transmit Coil Name
    0x00189005: TECHNIQUE,  # Pulse Sequence Name
    0x00189041: EQUIPMENT,  # Receive Coil Manufacturer Name
    0x00189047: EQUIPMENT,  # Multi-Coil Element Name
    0x00189050: EQUIPMENT,  # Transmit Coil Manufacturer Name
    0x00209421: TECHNIQUE,  # Dimension Description Label
    0x00281055: TECHNIQUE,  # Window Center & Width Explanation
    0x00281054: UNITS,  # Rescale Type: Hounsfield units
    0x00283004: UNITS,  # Modality LUT Type
    0x00283003: TECHNIQUE,  # LUT Explanation
    0x00541103: EQUIPMENT,  # Reconstruction Method: PET quantification
    0x00541105: TECHNIQUE,  # Scatter Correction Method
    0x00541101: TECHNIQUE,  # Attenuation Correction Method
    0x00620005: TECHNIQUE,  # Segment Label
    0x00620009: TECHNIQUE,  # Segment Algorithm Name
    0x00180039: TECHNIQUE | CODE_STRINGS,  # Therapy Description, and Content Label: code strings by their VR
    0x00700080: TECHNIQUE | CODE_STRINGS,  # Content Label: a code string by its VR, but people type it
}
"""Text attributes outside Table E.1-1 that pipelines need, and the words that may stay in them."""
