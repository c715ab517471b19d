"""Write the demo's roster of invented students, students.csv and enrollments.csv.

Run from anywhere: ``python tests/tools/make_roster.py [SEED]`` (2012 unless given). The same seed gives the same bytes.
Needs mimesis, a development dependency only (the checked-in files come from 22.2.0; other releases hold other names).
An empty unquoted field is NULL, "" is the empty string, as PostgreSQL's COPY ... (FORMAT csv) has it.
"""

import random
import re
import sys
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

from mimesis import Address, Gender, Locale, Person
from mimesis.keys import romanize

OUT = Path(__file__).resolve().parents[2] / "admin" / "rollbook" / "system" / "demo" / "roster"
HEADER = "username,email,first_name,last_name,is_active,date_joined,name,language,location,year_of_birth,gender,"
HEADER += "level_of_education,mailing_address,goals\n"
OPENED, CLOSED, LAST = (datetime(*day, tzinfo=UTC) for day in ((2012, 6, 1), (2012, 12, 31), (2013, 3, 1)))
# Course, popularity, what people come for; then locale, weight, street (s is its name, n and k are numbers), country.
COURSES = """MITx/6.002x/2012_Fall 12 circuits|electronics|op-amps|analog design
BerkeleyX/CS188.1x/2012_Fall 5 artificial intelligence|search algorithms|game-playing agents;edX/toy/2013_Spring 0.5 \
new tools;HarvardX/PH207x/2012_Fall 4 biostatistics|epidemiology|study design;edX/DemoX/2012_Fall 2.5 online teaching"""
PLACES = """en 27 {n} {s} Street|USA;en-gb 8 {n} {s} Road|UK;ar-ma 2 {n} شارع {s}|المغرب;pt-br 7 {s}, {n}|Brasil
fr 5 {n} rue {s}|France;de 5 {s} {n}|Deutschland;it 3 Via {s}, {n}|Italia;pl 3 ul. {s} {n}|Polska;el 4 {s} {n}|Ελλάδα
uk 4 вул. {s}, буд. {n}|Україна;hu 2 {s} utca {n}|Magyarország;fi 2 {s} {n}|Suomi;ar-eg 3 {n} شارع {s}|مصر
ru 7 ул. {s}, д. {n}|Россия;kk 2 {s} көшесі, {n}|Қазақстан;ja 4 {s}{k}丁目{n}番地|日本;fa 4 خیابان {s}، پلاک {n}|ایران
tr 4 {s} Sok. {n}|Türkiye;zh 8 {s}路{n}号|中国;is 1 {s} {n}|Ísland;es 9 {s}, {n}|España;ko 4 {s}길 {n}|대한민국"""
CITIES = {"es": "Madrid Barcelona Sevilla Valencia Zaragoza Bilbao Málaga Córdoba Murcia Vigo Gijón León Cádiz Granada"}
SURNAMES = {"zh": "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高", "ko": "김이박최정강조윤장임한오서신권황안송류홍"}
WORDS = "circuit pixel lambda maple comet harbor tensor falcon cobalt juniper voltage quartz nimbus walnut otter"
GOALS = """en:Learn {t} at my own pace.|Refresh what I knew about {t}, then earn the certificate.|Use {t} at work.|\
I want to understand {t} properly this time.|Curious about {t}; no other plans yet.|A certificate for my résumé.|\
My professor said "just try {t}", so here I am.|Get ready for graduate school, starting with {t}.|Explore {t} for fun.|\
Find out whether {t} is as hard as "everybody" says.|Help my daughter with {t}, and learn along with her.
es:Aprender algo nuevo, sin prisa.|Obtener el certificado.|Mejorar mi inglés.~pt:Aprender à noite.~ar:أريد أن أتعلم.
fr:Réviser les bases, puis aller plus loin.|Découvrir les cours en ligne.~el:Να μάθω κάτι καινούργιο.
de:Mein Wissen auffrischen, vor allem Mathematik.|Neues lernen, ganz ohne „Stress“.~tr:Yeni şeyler öğrenmek istiyorum.
ru:Хочу узнать, как учат в других странах.|Получить сертификат «с отличием».~uk:Вивчити щось нове, і то швидко.
zh:想学习新知识。|为出国留学做准备。|希望拿到证书，找到更好的工作。~ja:新しいことを学びたい。~fa:یادگیری، برای آینده"""
YOUNG, MIDDLE = "hs 50 jhs 20 b 3 el 3 none 3 other 4 - 17", "b 45 hs 28 m 11 other 3 p_oth 1 - 12"
OLDER = "m 36 b 32 p_se 7 p_oth 6 hs 7 other 3 jhs 1 none 1 - 9"
# Who and where the examples of the help name.
NAMED = """\
ada,ada@example.org,Ada,Byron,t,2012-12-28T08:00:00+00:00,Ada Byron,en,London,1985,f,m,,Compute with circuits.
bob,bob@example.org,Bob,Walnut,f,2012-12-28T09:00:00+00:00,Bob Walnut,en,Boston,1990,m,b,,
"""
SEATS = """\
ada,edX/DemoX/2012_Fall,2013-02-28T20:00:00+00:00
bob,edX/DemoX/2012_Fall,2013-02-28T20:00:00+00:00
"""
NAME = re.compile(r"(?!Mc[a-z]|O'[a-z])[^\W\d_]+(?:[ '’\u200c-][^\W\d_]+)*")
LATIN = str.maketrans({"ø": "o", "ł": "l", "ß": "ss", "đ": "d", "æ": "ae", "ı": "i", "ð": "d", "þ": "th", "ə": "e"})


def ascii_word(text: str, code: str) -> str:
    """Transliterate Latin and Cyrillic; the result is empty for other scripts."""
    text = romanize(Locale(code))(text.replace("й", "и")) if code in ("ru", "uk", "kk") else text
    return re.sub("[^a-z]", "", unicodedata.normalize("NFKD", text.lower().translate(LATIN)))


def field(text: str | None) -> str:
    """One CSV field: NULL stays empty, "" is quoted, other text is quoted where RFC 4180 asks for it."""
    return (text or "") if text is None or re.fullmatch('[^",\r\n]+', text) else '"' + text.replace('"', '""') + '"'


def build(seed: int) -> tuple[str, str]:
    """Return the text of students.csv and of enrollments.csv."""
    rng, taken, students, enrolled = random.Random(seed), set[str](), list[list[str | None]](), list[list[str]]()
    courses, places = ([entry.split(" ", 2) for entry in re.split("[;\n]", text)] for text in (COURSES, PLACES))
    persons = {code: Person(Locale(code), seed=f"{seed}-{code}") for code, *_ in places}
    addresses = {code: Address(Locale(code), seed=f"{seed}-{code}") for code, *_ in places}
    goals = {text[:2]: text[3:].split("|") for text in re.split("[~\n]", GOALS)}

    def pick(table: str) -> str | None:  # of choices and weights such as "m 58 f 30 - 12", where - is NULL
        (choice,) = rng.choices(table.split()[::2], [int(weight) for weight in table.split()[1::2]])
        return None if choice == "-" else choice

    def unique(*choices: str, domain: str = "") -> str:
        base = result = rng.choice(choices)[:26]
        while (result + domain).lower() in taken:
            result = f"{base}{rng.randint(2, 99)}"
        taken.add((result + domain).lower())
        return result + domain

    idle = rng.sample(range(1200), 25)
    for i, joined in enumerate(sorted(OPENED + (CLOSED - OPENED) * rng.triangular(0, 1, 0.45) for _ in range(1200))):
        ((code, _, rest),) = rng.choices(places, [int(weight) for _, weight, _ in places])
        person, address, lang, (street, country) = persons[code], addresses[code], code[:2], rest.split("|")
        gender, word = pick("m 58 f 30 o 1 - 11"), rng.choice(WORDS.split())
        sex = {"m": Gender.MALE, "f": Gender.FEMALE}.get(gender or "", rng.choice([Gender.MALE, Gender.FEMALE]))
        first = last = ""
        while not (NAME.fullmatch(first) and NAME.fullmatch(last) and first.title() == first):
            first, last = person.first_name(gender=sex), person.last_name(gender=sex)
        last = rng.choice(SURNAMES[code]) if code in SURNAMES and rng.random() < 0.8 else last
        name = last + first if code in SURNAMES else f"{last} {first}" if code in ("hu", "ja") else f"{first} {last}"
        born = 1998 - int(min(68, rng.gammavariate(2.2, 6.5)))
        level = pick(YOUNG if born > 1993 else OLDER if born < 1988 else MIDDLE)
        f = ascii_word(first, code) or ascii_word(persons["en"].first_name(gender=sex), "en")
        w, n = ascii_word(last, code) or word, f"{born % 100:02}"
        user = unique(f + w, f"{f}_{w}", f[0] + w, f"{f[0]}{w}{n}", f + n, f"{w}_{f}", word + n, f"{f}_{word}")
        mail = (user, f"{f}.{w}", f"{f}.{w}{n}", f"{w}.{f}", f"{f}{w[0]}{n}", f"{f.title()}.{w.title()}")
        email = unique(*mail, domain=f"@example.{pick('com 5 org 3 net 2')}")
        city = rng.choice(CITIES[code].split()) if code in CITIES else address.city().partition("(")[0].strip()
        road = street.format(s=address.street_name(), n=rng.randint(1, 180), k=rng.randint(1, 9))
        lines = [road, f"{address.postal_code()} {city}", country][:: -1 if code in ("zh", "ja", "ko") else 1]
        home = rng.choices([None, "", ", ".join(lines), "\n".join(lines)], [50, 3, 12, 35])[0]
        spoken, where = rng.choices([lang, "en", ""], [50, 8, 42])[0], city if rng.random() < 0.65 else ""
        wanted = sorted(courses, key=lambda course: rng.random() ** (1 / float(course[1])), reverse=True)
        wanted = wanted[: 0 if i in idle else int(pick("1 22 2 30 3 27 4 21") or 1)]
        for course, *_ in wanted:
            created = joined + (LAST - joined) * (0.0001 + 0.999 * rng.random() ** 3)
            enrolled.append([user, course, f"{created:%FT%T}+00:00"])
        topic = rng.choice(wanted[0][2].split("|")) if wanted else "statistics"
        goal = rng.choice(goals[lang if lang in goals and rng.random() < 0.4 else "en"]).format(t=topic)
        profile = [pick(f"{born} 88 - 12"), gender, level, home, *rng.choices([None, "", goal], [45, 3, 52])]
        student = [user, email, first, last, pick("t 85 f 15"), f"{joined:%FT%T}+00:00", name, spoken, where]
        students.append(student + profile)
    enrolled.sort(key=lambda row: (row[2], row))
    people, rolls = ("".join(",".join(map(field, row)) + "\n" for row in rows) for rows in (students, enrolled))
    return HEADER + people + NAMED, "username,course_id,created\n" + rolls + SEATS


if __name__ == "__main__":
    for path, text in zip(("students.csv", "enrollments.csv"), build(int([*sys.argv, "2012"][1])), strict=True):
        (OUT / path).write_text(text, encoding="utf-8", newline="\n")
