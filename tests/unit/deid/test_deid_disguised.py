"""The gate against disguises: names and numbers that are joined, parted, turned round, or written into tables."""

from __future__ import annotations

from typing import Final

import pytest

from mdmfs.hospital.deid import hangul, kana
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.deid.tokens import orders_of
from tests.twins.deidentified import deidentified, with_elements

POSITION: Final = 0x00185100
"""Patient Position, a code string that stays."""
LATIN: Final = encode(head(0x00080005, b"CS"), b"ISO_IR 100")


def coded(code: bytes) -> bytes:
    """Write a code string."""
    return encode(head(POSITION, b"CS"), code)


def named(name: bytes) -> bytes:
    """Write a patient's name."""
    return encode(head(0x00100010, b"PN"), name)


def numbered(number: bytes) -> bytes:
    """Write a Patient ID."""
    return encode(head(0x00100020, b"LO"), number)


def refuses(*elements: bytes) -> None:
    """Make sure that an instance is refused for the last of its elements, and is none without it."""
    assert deidentified(with_elements(*elements[:-1]))
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(*elements))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"Doe^Jane", b"DOEJANE"),
        (b"Doe^Jane", b"JANEDOE"),
        (b"Doe^Jane^Mary", b"DOEJANEMARY"),
        (b"Doe^Jane^Mary", b"JANEMARYDOE1969"),
        (b"Smith^Jane", b"JSMITH"),
        (b"Smith^Jane", b"SMITHJ"),
        (b"Smith^Jane^Mary", b"JMSMITH"),
        (b"Kim^Min Ho", b"KIM MIN HO"),
        (b"Mc Adam^Jo", b"MCADAMJO"),
        (b"Vandermeulen^Jo", b"FRVANDERMEULENJO"),
        (b"Vandermeulen^Josephina", b"VANDERMEULENJOSE"),
        (b"Schwarzeneggerhuber^Jo", b"SCHWARZENEGGERHU"),
        (b"Schwarzeneggerhuber^Jo", b"SCHWARZE"),
        (b"Smith, Jane", b"JSMITH"),
        (b"Smith, Jane", b"JANESMITH"),
        (b"Smith Jane", b"SMITHJ"),
        (b"Jane Smith", b"JSMITH"),
        (b"Jane Mary Smith", b"JMSMITH"),
    ],
)
def test_a_name_is_found_joined_with_another(name: bytes, code: bytes) -> None:
    """In either order, with initials, cut at the sixteen letters of a code, or behind a title; also without carets."""
    refuses(named(name), coded(code))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"McDonald^Jo", b"MC DONALD"),
        (b"Delacroix^Jo", b"DE_LA_CROIX"),
        (b"O`Hannigan^Jo", b"OHANNIGAN"),
        (b'D"Angelo^Jo', b"DANGELO"),
        (b"Smith (Jones)^Jo", b"SMITHJONES"),
        (b"^^^Vandermeulen Jo", b"VANDERMEULEN"),
    ],
)
def test_a_name_is_found_whatever_parts_it(name: bytes, code: bytes) -> None:
    """In the name, where people type any apostrophe that there is, or in the code; and where it stands as a prefix."""
    refuses(named(name), coded(code))


@pytest.mark.parametrize(
    ("name", "code"), [(b"Doe^Jane^^^84729103", b"ID84729103"), (b"Doe^Jane^^* 04.03.1969", b"04031969")]
)
def test_a_number_is_found_that_stands_in_a_name(name: bytes, code: bytes) -> None:
    """As a suffix or a prefix, which otherwise tell nothing."""
    refuses(named(name), coded(code))


@pytest.mark.parametrize("moment", [b"1803121015", b"2018031210", b"180312101530", b"18031210153000"])
def test_a_date_is_found_that_a_number_of_a_series_begins_with(moment: bytes) -> None:
    """Some machines number by the clock; the date did not move there."""
    refuses(encode(head(0x00080021, b"DA"), b"20180312"), encode(head(0x00181060, b"DS"), moment))


def test_a_number_is_found_in_a_text_in_parts_that_may_stay() -> None:
    """Each of them looks like a measure."""
    order = encode(head(0x00402016, b"LO"), b"H12-V345-B678")
    refuses(order, encode(head(0x0008103E, b"LO"), b"sag H12 V345 B678 t1"))


@pytest.mark.parametrize("code", [b"8472 9103", b"847_291_03", b"ID 84 72 91 03", b"NO_84_729103"])
def test_a_number_is_found_whatever_parts_it(code: bytes) -> None:
    """A code string has spaces and underscores for what was a hyphen or nothing."""
    refuses(numbered(b"84729103"), coded(code))
    refuses(numbered(b"84:729#103"), coded(code))


@pytest.mark.parametrize("name", [b"Schwartz^Jo", b"Chang^Jo", b"Wood^Jo"])
def test_that_a_code_of_the_standard_means_a_surname_lets_none_out_in_a_code_string(name: bytes) -> None:
    """PS3.16 names formulas and diseases after people; a defined term of PS3.3 is not."""
    refuses(named(name), coded(name[:-3].upper()))


def test_a_number_that_is_also_a_code_of_the_standard_is_found() -> None:
    """113100 is the Basic Profile's, and somebody's."""
    refuses(numbered(b"113100"), coded(b"NO 113100"))


@pytest.mark.parametrize("number", [b"84729103E000", b"84729103e+0000", b"0.84729103E008"])
def test_a_number_is_found_with_any_exponent(number: bytes) -> None:
    """Four digits of one are let through."""
    refuses(numbered(b"84729103"), encode(head(0x00181060, b"DS"), number))


@pytest.mark.parametrize("tag", [0x00200011, 0x00200012])
@pytest.mark.parametrize("number", [b"471103", b"+471103", b"000471103"])
def test_a_short_patient_id_is_found_where_it_is_the_whole_number(tag: int, number: bytes) -> None:
    """One of five or six digits, whatever parts them."""
    refuses(numbered(b"47-1103"), encode(head(tag, b"IS"), number))
    refuses(numbered(b"471103"), encode(head(0x00181041, b"DS"), b"1.5\\ \\471103.0"))
    assert deidentified(with_elements(numbered(b"471103"), encode(head(0x00181041, b"DS"), b"4711.03\\1471103")))


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00181060, b"DS"),
        (0x00181153, b"IS"),
        (0x00181170, b"IS"),
        (0x00181242, b"IS"),
        (0x00188150, b"DS"),
        (0x00188151, b"DS"),
        (0x00200013, b"IS"),
        (0x00200110, b"DS"),
        (0x00541300, b"DS"),
        (0x00541310, b"IS"),
        (0x00541311, b"IS"),
    ],
)
def test_what_a_machine_counts_or_measures_is_no_short_patient_id(tag: int, vr: bytes) -> None:
    """The exposures of a CT alone would be three hundred such numbers."""
    assert deidentified(with_elements(numbered(b"471103"), encode(head(tag, vr), b"471103")))
    refuses(numbered(b"4711030"), encode(head(tag, vr), b"4711030 "))


@pytest.mark.parametrize(
    "code",
    [
        *(b"04031969", b"03041969", b"BORN 04 03 1969", b"690304", b"DOB_04_03_69", b"030469"),
        *(b"04MAR1969", b"4 MAR 1969", b"MARCH 04 1969", b"4_MARCH_1969", b"MAR 4 1969"),
        *(b"4 3 1969", b"3_4_1969", b"1969 3 4"),
    ],
)
def test_a_birth_date_is_found_in_another_order(code: bytes) -> None:
    """As it is written by hand nearly everywhere."""
    refuses(encode(head(0x00100030, b"DA"), b"19690304"), coded(code))


def test_a_birth_date_is_found_in_another_order_as_a_number() -> None:
    """With or without the zero before it."""
    for number in (b"04031969", b"4031969", b"3041969"):
        refuses(encode(head(0x00100030, b"DA"), b"1969.03.04"), encode(head(0x00200011, b"IS"), number))


def test_what_is_no_date_has_no_other_orders() -> None:
    """Eight digits may be a number."""
    assert orders_of("84729103") == orders_of("1234567") == set()


def test_a_name_in_utf_8_is_found_where_latin_1_is_declared() -> None:
    """The commonest of wrong declarations: every byte is a letter of Latin 1."""
    for code in (b"MULLER", b"MUELLER"):
        refuses(LATIN, named("Müller^Jo".encode()), coded(code))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Иванов^Юрий", b"IVANOV"),
        ("Кузнецов^Ян", b"KUZNETSOV_Y"),
        ("Παπαδόπουλος^Νίκος", b"PAPADOPOULOS"),
        ("Παπαδόπουλος^Νίκος", b"NIKOS"),
        ("Ka\u02bbanana^Jo", b"KAANANA"),
        ("Għarb^Jo", b"GHARB"),
    ],
)
def test_a_name_in_another_script_is_found_as_passports_have_it(name: str, code: bytes) -> None:
    """A code string is in Latin letters, whatever the name is in."""
    refuses(encode(head(0x00080005, b"CS"), b"ISO_IR 192"), named(name.encode()), coded(code))


def declared(charset: bytes) -> bytes:
    """Write a Specific Character Set."""
    return encode(head(0x00080005, b"CS"), charset)


@pytest.mark.parametrize("tag", [0x00081110, 0x00081115, 0x00101002])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_name_is_found_that_an_item_has_in_characters_of_its_own(tag: int, depth: int) -> None:
    """An item may declare others than the object, and what lies in it has these too (PS3.3 section C.12.1.1.2)."""
    inner = encode(head(0x00101001, b"PN"), "Иванов^Ян".encode("iso8859_5"))
    for _ in range(depth):
        inner = encode_items(head(0x0040A073, b"SQ"), [inner])
    other = encode(head(0x00081048, b"PN"), "Weiß^Jo".encode("latin_1"))
    items = encode_items(head(tag, b"SQ"), [declared(b"ISO_IR 144") + inner, other])
    for code in (b"IVANOV", b"WEISS"):
        refuses(declared(b"ISO_IR 100"), items, coded(code))


def test_a_name_is_found_whose_characters_an_item_does_not_have() -> None:
    """What an item declares may be wrong, as may be what an object does."""
    item = declared(b"ISO_IR 144") + encode(head(0x00101001, b"PN"), "Weiß^Jo".encode("latin_1"))
    refuses(declared(b"ISO_IR 100"), encode_items(head(0x00081115, b"SQ"), [item]), coded(b"WEISS"))


def test_characters_of_an_item_that_nobody_knows_are_refused() -> None:
    """As are those of an object: nobody could read a name in them."""
    with pytest.raises(RefusedError, match=r"character-set at \(0008,0005\)"):
        deidentified(with_elements(encode_items(head(0x00081115, b"SQ"), [declared(b"ISO_IR 999")])))


@pytest.mark.parametrize(
    ("declared", "octets"),
    [
        (b"GB18030", "俕俕俕 Vandermeulen^Jo".encode("gb18030")),
        (b"\\ISO 2022 IR 87", "五五五".encode("iso2022_jp") + b" Vandermeulen^Jo"),
    ],
)
def test_a_name_is_found_behind_characters_whose_octets_are_those_of_what_parts_names(
    declared: bytes, octets: bytes
) -> None:
    """Those of three characters were taken for family, given and middle name, and what came behind for a suffix."""
    assert octets.count(b"^") > 2
    refuses(encode(head(0x00080005, b"CS"), declared), named(octets), coded(b"VANDERMEULEN"))


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", ["YAMADA", "TAROU", "TAROYAMADA"]),
        ("ほんま^しゅんいち", ["HONMA", "HOMMA", "SHUNICHI"]),
        ("ハットリ^ジョージ", ["HATTORI", "JOJI"]),
        ("ｲｯﾁｮｳ^ﾂﾂﾞｷ", ["ITCHOU", "ITCHO", "TSUZUKI"]),
        ("おおふじ^ゆうき", ["OOFUJI", "YUUKI", "OFUJIYUKI"]),
        ("おおの^たろう", ["OHNO", "OHNOTAROH", "OHNOTARO"]),
        ("サトー^けんじ", ["SATOH"]),
        ("おおおか^かをる", ["OOKA", "OHOKA", "KAORU", "KAWORU"]),
        ("シェリー^ティナ", ["SHERI", "SHIERI", "TINA"]),
        ("フェルナンデス^ジェフ", ["FERUNANDESU", "FUERUNANDESU", "JEFU"]),
        ("チェン^ズィハン", ["CHEN", "ZIHAN"]),
        ("ウィリアム^ウォン", ["WIRIAMU", "WIRIAMUWON"]),
        ("デュポン^クァク", ["DYUPON", "KWAKU"]),
        ("グヮンナン^イェン", ["GWANNAN", "YENGWANNAN"]),
        ("ヴァネッサ^トゥイ", ["VANESSA", "VANESSATUI"]),
        ("ヤマダ~タロウ", ["YAMADA"]),
    ],
)
def test_a_name_in_kana_is_found_in_latin_letters(name: str, codes: list[str]) -> None:
    """As passports have it, without the lengths of vowels or with an h, as it is typed, and as a foreign one sounds."""
    for code in codes:
        refuses(encode(head(0x00080005, b"CS"), b"ISO_IR 192"), named(name.encode()), coded(code.encode()))


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("홍^길동", ["GILDONG", "HONGGILDONG", "KILTONG"]),
        ("홍길동", ["GILDONG", "HONG GIL DONG"]),
        ("Xx^Yy=洪^吉洞=홍^길동", ["GILDONG", "JIDONG"]),
        ("김^민준", ["KIM MINJUN", "GIM MINJUN", "MINJOON"]),
        ("이^영희", ["YOUNGHEE", "LEEYEONGHUI", "YIYUNGHEE", "YONGHUI"]),
        ("최^정우", ["CHOIJUNGWOO", "CHOE JEONGU", "JUNGWOO"]),
        ("정\u1112\u1167\u11ab우", ["CHUNGHYUNWOO", "HYEONU"]),
    ],
)
def test_a_name_in_hangul_is_found_in_latin_letters(name: str, codes: list[str]) -> None:
    """By the rules, and as people spell theirs; most names there have no mark between their parts."""
    for code in codes:
        refuses(declared(b"ISO_IR 192"), named(name.encode()), coded(code.encode()))


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("王^小东", ["XIAODONG", "WANG XIAODONG", "WANGXIAODONG", "HSIAOTUNG"]),
        ("王小东", ["XIAODONG", "WANGXIAO DONG"]),
        ("吕^秀莲", ["LVXIULIAN", "LU XIULIAN", "LYU_XIULIAN", "HSIULIEN"]),
        ("謝^佩芬", ["HSIEH", "PEIFEN"]),
        ("曾^国藩", ["ZENG", "TSENG KUOFAN", "GUOFAN"]),
        ("司马^迁", ["SIMA", "SZUMA"]),
        ("周^志", ["ZHOU", "CHOUCHIH"]),
        ("郭^磊", ["GUOLEI", "KUO LEI"]),
    ],
)
def test_a_name_in_chinese_characters_is_found_in_latin_letters(name: str, codes: list[str]) -> None:
    """In pinyin, and as Taiwan has it; some characters are read in another way in family names."""
    for code in codes:
        refuses(declared(b"GB18030"), named(name.encode("gb18030")), coded(code.encode()))


def test_a_name_in_hangul_has_few_spellings() -> None:
    """However long it is: the search would take as many times as long."""
    spelled = hangul.romanized("정^현우" * 50)
    assert len(spelled) == len(set(spelled)) <= 48


def test_a_name_in_kana_has_few_spellings() -> None:
    """However long it is: the search would take as many times as long."""
    spelled = kana.romanized("オオンバファ^オオンバファ" * 50)
    assert len(spelled) == len(set(spelled)) == 16


@pytest.mark.parametrize(
    "table",
    [b"\0\1\2VANDERMEULEN\0\1\2", "Vandermeulen".encode("utf_16_le"), b"\xff\0H84729103\0\0", b"DoeJane\0"],
)
@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00281201, b"OW"),
        (0x00283006, b"OW"),
        (0x00283002, b"US"),
        (0x00186028, b"FD"),
        (0x00189079, b"FL"),
        (0x00280009, b"AT"),
        (0x0008040C, b"UV"),
    ],
)
def test_a_text_in_a_table_is_found(tag: int, vr: bytes, table: bytes) -> None:
    """Palettes, lookup tables and numbers stay as they are; those that they hold are no words."""
    others = encode(head(0x00101001, b"PN"), b"Vandermeulen^Jo")
    padded = table + b"\0" * (-len(table) % 8)
    refuses(named(b"Doe^Jane"), others, numbered(b"H84729103"), encode(head(tag, vr), padded))


def test_ramps_in_a_palette_are_no_residue() -> None:
    """They hold all digits and letters in order."""
    ramp = encode(head(0x00281201, b"OW"), bytes(range(256)) + b"".join(bytes([grey, 0]) for grey in range(256)))
    assert deidentified(with_elements(named(b"Hijk^Lmno"), numbered(b"1234567"), ramp))
    long = encode(head(0x00283002, b"US"), b"\1\0" * 40_000)
    assert deidentified(with_elements(named(b"Doe^Jane"), long))


def test_a_text_is_found_in_long_tables_wherever_they_are_cut() -> None:
    """What is more than 1 MiB in all is taken apart piece by piece, never within a word."""
    empty = b"\xff" * 2**18

    def lookup(table: bytes) -> bytes:
        return encode(head(0x00283006, b"OW"), table)

    for behind in range(0, 16, 3):
        told = empty[: 2**18 - 12 - behind] + b"Vandermeulen" + b"\xff" * behind
        tables = encode_items(head(0x00283010, b"SQ"), [*map(lookup, [empty, empty, empty, told, empty])])
        refuses(named(b"Vandermeulen^Jo"), tables)


@pytest.mark.parametrize("tag", [0x00281201, 0x00283006])
def test_a_lookup_table_is_no_longer_than_one_can_be(tag: int) -> None:
    """With 65,536 entries it stays; what is much longer is something else, and goes."""
    for length, stays in [(2**17, True), (2**18 + 2, False)]:
        table = encode(head(tag, b"OW"), b"\1\0" * (length // 2))
        assert (len(deidentified(with_elements(table))) > length) is stays


@pytest.mark.parametrize("before", range(65536 - 8, 65536 + 2))
def test_what_was_said_in_a_long_text_is_found_wherever_that_is_cut(before: int) -> None:
    """It is taken apart stretch by stretch, never within a word."""
    refuses(encode(head(0x0008103E, b"LO"), b"TE1000"), encode(head(0x00204000, b"UT"), b"-" * before + b"TE1000-"))


def test_more_than_can_be_searched_for_is_refused() -> None:
    """No object says as much in free text."""
    told = encode(head(0x0008103E, b"LO"), b"TE1000"), encode(head(0x00204000, b"UT"), bytes([65]) * (2**24 + 2))
    with pytest.raises(RefusedError, match="too-large"):
        deidentified(with_elements(*told))


@pytest.mark.parametrize(("tag", "vr"), [(POSITION, b"CS"), (0x00101040, b"LO")])
def test_more_than_can_be_searched_is_refused(tag: int, vr: bytes) -> None:
    """As many different codes, or as long an address, as no object has; the same code often is one code."""
    words = b"\\".join(b"A%07d" % number for number in range(2**20 // 9 + 1))
    with pytest.raises(RefusedError, match="too-large"):
        deidentified(with_elements(encode(head(tag, vr), words)))
    often = [encode(head(tag, vr), words[: 2**15 - 1])] * 40
    assert deidentified(with_elements(encode_items(head(0x00081115, b"SQ"), often)))


def test_more_names_than_anybody_has_are_refused() -> None:
    """Each is spelled in many ways, which takes its time."""
    names = b"\\".join(b"Doe^%07d" % number for number in range(2**16 // 12 + 1))
    with pytest.raises(RefusedError, match="too-large"):
        deidentified(with_elements(encode(head(0x00101001, b"PN"), names)))


def test_many_distinct_codes_are_searched_as_few_are() -> None:
    """What so many say is not remembered for the series."""
    codes = b"\\".join(b"A%07d" % number for number in range(6000))
    refuses(named(b"Doe^Jane"), numbered(b"A0005999"), coded(codes))
