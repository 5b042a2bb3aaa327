"""Fetch sounds that are no commands, from Debian's packages of games, desktops and teaching.

Usage:
    python recipes/get_sounds.py FOLDER             # 1.9 GB to download, 7 minutes or more
    python recipes/get_sounds.py FOLDER --packages lugaru-data yaru-theme-sound

It writes `FOLDER/training/<package>/` and `FOLDER/validation/<package>/`: FLAC, mono, 16 kHz, with
the package's own `copyright` file, and `FOLDER/sounds.tsv`: split, file, package, version, kind,
licence, seconds. It needs `apt-get`, `dpkg-deb` and the packages `numpy`, `soundfile` and `soxr`.
Nothing is installed: packages are downloaded into a temporary folder and unpacked there.

A package belongs to one split. A stopped run goes on with the first package that has no folder.
It does not know what a sound contains: files with spoken words are left out by their names, below.
"""

import argparse
import hashlib
import struct
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from debian import (
    copy_licence,
    fetch_all,
    flat_name,
    join_tables,
    unpacked,
    whole_package,
    without_tools,
    write_table,
)

SAMPLE_RATE = 16_000
# Variety is worth more than length: a minute of one piece, ten minutes of music of one package.
FILE_SECONDS = 60.0
MUSIC_SECONDS = 600.0
PACKAGE_SECONDS = 900.0
SHORTEST_SECONDS = 0.02
SILENT_PEAK = 1e-3
AUDIO_SUFFIXES = {".ogg", ".oga", ".opus", ".wav", ".flac", ".mp3"}
COLUMNS = ("split", "file", "package", "version", "kind", "licence", "seconds")


class Source(NamedTuple):
    """One package.

    Args:
        package: its name.
        split: `training` or `validation`.
        licence: of the sounds, as the package's copyright file says.
        rules: lines `kind: pattern pattern ...`. The first line with a matching pattern decides;
            `no` leaves a file out, and so does no match. A pattern without `/` is held against the
            file's name, another one against the end of its path. `?` stands for a space too.
    """

    package: str
    split: str
    licence: str
    rules: str


# Three recordings stand in packages of both splits; the rules leave out the one for training.
SOURCES = [
    # Animals, instruments and things of the house. `_desc` is speech, and so are most `symbols`.
    Source(
        "tuxpaint-stamps-default",
        "training",
        "GPL-2",
        """no: *_desc* stamps/symbols/* stamps/town/* stamps/seasonal/hanukkah/* stamps/space/*
        animal: stamps/animals/* stamps/seasonal/halloween/*cat*
        household: stamps/household/* stamps/hobbies/camera*
        machine: stamps/vehicles/*
        instrument: stamps/hobbies/music/* stamps/military/*
        effect: stamps/naturalforces/* stamps/seasonal/newyears/*""",
    ),
    Source(
        "gcompris-qt-data",
        "validation",
        "GPL-3+, CC-BY, CC-BY-SA, CC0, public domain: by file, see copyright",
        """no: LRLaPause* *voice* america*
        animal: animals/*.ogg *[Bb]ark* *[Cc]at_* *[Cc]ow* *[Bb]ird* *[Dd]og* LRFrogs*
        music: music/*.ogg
        instrument: instruments/resource/*.ogg guitar_* xylofon_* *gong*
        machine: train.wav helicopter.wav car.wav *Train* *CarEngine* *Factory*
        household: memory-sound/resource/*.ogg canal_lock/resource/*.wav watercycle/resource/*.wav
        household: metal_hit.wav money*.wav clickgame/resource/*.wav pickaxe.wav""",
    ),
    Source(
        "lugaru-data",
        "training",
        "CC-BY-SA-3.0",
        """music: Music*
        animal: Bark* Growl* Snarl* Hawk* RabbitChitter*
        no: RabbitAttack* RabbitPain*
        effect: *""",
    ),
    Source(
        "scorched3d-data",
        "validation",
        "GPL-2+; some CC-BY-SA-3.0: see copyright",
        """no: fight4life* scream* extralife* text* play* lockon* beamup*
        music: data/music/*
        animal: bats* bird* frogs* gull* wolf* bees* cows* dog* moo* rooster* sheep*
        machine: apache* f16* f18* jet* t38* carhorn* cessna* citysounds* factoryloop* firetruck*
        machine: helicopter* nuclearloop* policecar* movement/*
        effect: *""",
    ),
    Source(
        "brainparty-data",
        "training",
        "GPL-3+; electricity.ogg CC-BY-SA-3.0",
        """animal: baa* meow*
        household: balloon* bubble* card_* click* glass_break* mouse_click*
        effect: beep_hi* electricity* explosion* gun* soft_boom* swoosh* whack* zap*""",
    ),
    Source(
        "plee-the-bear-data",
        "training",
        "CC-BY-SA-3.0",
        """animal: gorilla/* frog/*
        no: plee/*
        instrument: scale/*
        animal: woodpecker/* grr*
        music: */music/* */sequencer/*
        effect: *""",
    ),
    Source(
        "pekka-kana-2-data",
        "training",
        "BSD-2-Clause",
        """animal: bee* bird* bunny* chick* crow* doodle* frog* hen* moo* p_doodle* p_layegg* pig*
        animal: wolf*
        effect: *""",
    ),
    Source(
        "caveexpress-data",
        "training",
        "CC-BY-SA-4.0",
        "music: music-*\nanimal: npc-mammut* npc-flying*\nno: npc-* player-pain*\neffect: *",
    ),
    Source(
        "minetest-data",
        "training",
        "CC-BY-SA-3.0; some others: see copyright",
        "no: fire_small*\nhousehold: doors_* xpanes_*\neffect: *",
    ),
    Source("bucklespring-data", "training", "GPL-2+", "household: *"),
    Source("minetest-mod-homedecor", "validation", "CC-BY-SA-4.0", "household: *"),
    Source(
        "minetest-mod-mesecons", "validation", "CC-BY-SA-3.0", "instrument: *noteblock*\neffect: *"
    ),
    Source(
        "minetest-mod-nether",
        "validation",
        "CC-BY-3.0, CC-BY-SA-4.0, CC0-1.0: by file, see copyright",
        "effect: *",
    ),
    # Sounds of desktops: bells, rings, clicks. `audio-channel` is speech.
    Source(
        "sound-theme-freedesktop",
        "training",
        "CC-BY-3.0, CC-BY-SA-3.0, GPL-2+: by file, see copyright",
        """no: audio-channel-* message-new-instant*
        household: phone-* alarm* camera* bell*
        effect: *""",
    ),
    Source("yaru-theme-sound", "training", "CC-BY-SA-4.0", "effect: *"),
    Source("deepin-sound-theme", "training", "GPL-3", "household: camera*\neffect: *"),
    Source(
        "lomiri-sounds",
        "training",
        "CC0-1.0, CC-BY-3.0, CC-BY-4.0, CC-BY-SA-3.0: by file, see copyright",
        "no: Call?me*\nhousehold: camera/*\nmusic: ringtones/*\neffect: *",
    ),
    Source(
        "gnome-audio",
        "training",
        "CC-BY-3.0, CC-BY-SA-2.0: by file, see copyright",
        "household: phone* card_*\neffect: *",
    ),
    Source("gnome-shell-pomodoro-data", "training", "GPL-3+", "animal: birds*\nhousehold: *"),
    Source("oxygen-sounds", "validation", "LGPL-3.0+", "effect: *"),
    Source("workrave-data", "validation", "GPL-3+", "household: bells/*\neffect: *"),
    Source(
        "psi-plus-sounds",
        "validation",
        "GPL-2+, public domain: by file, see copyright",
        "effect: *",
    ),
    # Machines.
    Source(
        "endless-sky-data",
        "training",
        "public domain; some CC-BY-SA-3.0",
        "machine: machinery* hyperdrive* jump* landing* afterburner*\neffect: *",
    ),
    Source("searchandrescue-data", "training", "GPL", "music: music/*\nmachine: *"),
    # Its schools, markets and houses are full of people, who may say something.
    Source(
        "lincity-ng-data",
        "training",
        "GPL-2+",
        """no: School* University* Market* Residential* Shanty* Commune* Sport* Tip* Health*
        animal: Farm* OrganicFarm* Green*
        household: Click* Window* Water*
        machine: Blacksmith* CoalMine* Industry* Mill* OreMine* Power* Rail* Rocket* Substation*
        machine: Trafic* WindMill* Recycle* Harbor*
        effect: *""",
    ),
    Source("opencity-data", "training", "GPL-2+", "effect: *"),
    Source("ri-li-data", "training", "GPL-2", "no: end* live* lose*\nmachine: *"),
    Source(
        "crrcsim-data",
        "validation",
        "GPL-2",
        "machine: sounds/electric* sounds/fan* sounds/glider*",
    ),
    # Instruments. What may be a voice or a speaking robot is left out.
    Source(
        "sonic-pi-samples",
        "training",
        "CC0",
        """no: *robot* *vox* rand-* *vinyl_*
        music: loop_*
        animal: misc_crow*
        effect: ambi_* misc_* mehackit_*
        instrument: *""",
    ),
    Source(
        "hydrogen-drumkits",
        "training",
        "GPL-2+, GPL-2, CC-BY-SA-3.0, CC0: by kit, see copyright",
        "instrument: *",
    ),
    Source("hydrogen-drumkits-effects", "validation", "CC-BY-3.0", "instrument: *"),
    Source(
        "lmms-common",
        "validation",
        "GPL-2+; some others: see copyright",
        """no: misc/bass* misc/buzz* misc/breath* misc/hit* shapes/* waveforms/*
        music: beats/* bassloops/*
        household: metronome* applause*
        effect: effects/* misc/*
        instrument: *""",
    ),
    # Music, with the effects of its game.
    Source(
        "supertux-data",
        "training",
        "GPL-2+, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0: by file, see copyright",
        """no: speech/* welldone* excellent* grunts* hurt* yeti_* voc-*
        music: music/*
        effect: sounds/*""",
    ),
    Source(
        "tuxfootball",
        "training",
        "GPL-2+",
        "no: crowd*\nmusic: ingame* titlemusic*\ninstrument: refwhistle*\neffect: *",
    ),
    Source(
        "bzflag-data",
        "training",
        "LGPL-2.1 or MPL",
        "no: hunt* killteam* message_* spree* teamgrab* thief*\neffect: *",
    ),
    Source("extremetuxracer-data", "training", "GPL-2+", "music: music/*\neffect: *"),
    Source(
        "frozen-bubble-data",
        "training",
        "GPL-2",
        "music: *zik*\nno: hurry* noh* applause*\neffect: *",
    ),
    Source(
        "warzone2100-music", "training", "GPL-2+; some CC0, CC-BY-SA-3.0: see copyright", "music: *"
    ),
    Source(
        "unknown-horizons",
        "training",
        "CC-BY-SA-3.0",
        """no: voice/*/*/*/* tavern* main_square* */events/*
        music: audio/music/* audio/music/*/*
        animal: sheepfield*
        machine: windmill*
        effect: *""",
    ),
    Source("colobot-common-sounds", "training", "GPL-3+", "music: music/*"),
    Source("singularity-music", "training", "CC-BY-SA-3.0", "music: *"),
    Source("pushover-data", "training", "GPL-3+", "music: *"),
    Source("lordsawar-data", "training", "GPL-3+", "music: *"),
    Source("glob2-data", "training", "GPL-3+", "music: *"),
    Source("enigma-data", "training", "GPL-2", "music: music/*\neffect: *"),
    Source("amoebax-data", "training", "Free Art License 1.2, GPL-2+", "music: music/*"),
    Source("asterisk-moh-opsound-wav", "training", "CC-BY-SA-3.0", "music: *"),
    Source("powermanga-data", "training", "GPL-3+", "music: music_*\neffect: *"),
    Source("foobillardplus-data", "training", "GPL-2", "music: intro*\neffect: *"),
    Source(
        "tuxtype-data",
        "training",
        "GPL-2",
        "no: tuxi* excuseme* pause*\nmusic: amidst* chip*\neffect: *",
    ),
    Source(
        "hyperrogue-music",
        "validation",
        "music CC-BY-SA-3.0; sounds CC-BY-SA-4.0 and others: see copyright",
        "music: music/*\nanimal: seen-frog*\n"
        "animal: seen-eagle* seen-snake* seen-woof* mousesqueak* bull*\n"
        "effect: hit-axe* hit-crush* hit-sword* pickup-* explosion* fire* click* closegate*",
    ),
    Source(
        "zaz-data", "validation", "GPL-3+; music CC-BY-SA-3.0", "music: mus*\nno: ouch*\neffect: *"
    ),
    Source(
        "wizznic-data",
        "training",
        "GPL-3",
        "no: countdown* start*\nmusic: music/* menu-music*\neffect: *",
    ),
    Source("asc-music", "validation", "GPL-2+", "music: *"),
    Source("pathological", "validation", "GPL-2+", "music: music/*\neffect: *"),
    Source(
        "hex-a-hop-data",
        "validation",
        "GPL-2+; music CC-BY-SA-3.0; some CC-BY-3.0, CC0: see copyright",
        "music: music-*\neffect: *",
    ),
]


class Found(NamedTuple):
    """A sound file of a package: where it lies there, its kind, and a path that can be read."""

    name: str
    kind: str
    path: Path


def kind_of(name: str, rules: str) -> str | None:
    """The kind that the rules give to a file, None where they leave it out."""
    for line in rules.splitlines():
        kind, patterns = line.strip().split(":", 1)
        for pattern in patterns.split():
            target = f"/{name}" if "/" in pattern else name.rsplit("/", 1)[-1]
            if fnmatchcase(target, f"*/{pattern}" if "/" in pattern else pattern):
                return None if kind == "no" else kind
    return None


def resource_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each uncompressed file in a Qt resource file, format 1 to 3.

    Source: Qt's `qresource.cpp`: a header of offsets, a tree of 14 (format 1) or 22 bytes a node.
    """
    data = path.read_bytes()
    magic, version, tree, contents, names = struct.unpack_from(">4sIIII", data)
    if magic != b"qres":
        raise ValueError(f"{path.name} is no Qt resource file: it starts with {magic!r}")
    node_bytes = 14 if version == 1 else 22

    def walk(node: int, above: str) -> Iterator[tuple[str, bytes]]:
        start = tree + node * node_bytes
        name_offset, flags = struct.unpack_from(">IH", data, start)
        name = above
        if node:
            (length,) = struct.unpack_from(">H", data, names + name_offset)
            text = names + name_offset + 6
            name = f"{above}/{data[text : text + 2 * length].decode('utf-16-be')}"
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", data, start + 6)
            for child in range(first, first + count):
                yield from walk(child, name)
        elif not flags & 5:  # neither zlib nor zstd
            (offset,) = struct.unpack_from(">I", data, start + 10)
            (size,) = struct.unpack_from(">I", data, contents + offset)
            yield name, data[contents + offset + 4 : contents + offset + 4 + size]

    return walk(0, "")


def unpack_resources(folder: Path) -> None:
    """Write the sounds of each `.rcc` file below a folder into a folder of that name beside it."""
    for path in sorted(folder.rglob("*.rcc")):
        for name, content in resource_files(path):
            if Path(name).suffix in AUDIO_SUFFIXES:
                target = path.with_suffix("") / name.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def find_sounds(folder: Path, rules: str) -> list[Found]:
    """The sound files of an unpacked package that the rules keep; music last, otherwise shuffled.

    The order is a function of the names alone: it decides which ones a full package leaves out.
    """
    found = []
    for path in folder.rglob("*"):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not path.is_symlink():
            name = path.relative_to(folder).as_posix()
            kind = kind_of(name, rules)
            if kind is not None:
                found.append(Found(name, kind, path))
    digest = {sound: hashlib.sha256(sound.name.encode()).digest() for sound in found}
    return sorted(found, key=lambda sound: (sound.kind == "music", digest[sound]))


def read_sound(path: Path) -> np.ndarray:
    """At most a minute of a file, from a quarter of the rest on: float32 (N,) at 16 kHz."""
    with soundfile.SoundFile(path) as file:
        wanted = int(FILE_SECONDS * file.samplerate)
        if file.frames > wanted:
            file.seek((file.frames - wanted) // 4)
        samples = file.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
        rate = file.samplerate
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def convert(sounds: list[Found], target: Path) -> list[tuple[str, str, float]]:
    """Write sounds as FLAC until the package is full; returns file name, kind, seconds of each."""
    written: dict[str, tuple[str, str, float]] = {}
    seen: set[bytes] = set()
    total = music = 0.0
    for sound in sounds:
        try:
            samples = read_sound(sound.path)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip()
            print(f"  {sound.name}: left out, it cannot be read: {reason}", file=sys.stderr)
            continue
        seconds = len(samples) / SAMPLE_RATE
        is_music = sound.kind == "music"
        full = total + seconds > PACKAGE_SECONDS or (is_music and music + seconds > MUSIC_SECONDS)
        digest = hashlib.sha256(samples.tobytes()).digest()
        name = f"{flat_name(sound.name)}.flac"
        too_short = seconds < SHORTEST_SECONDS or np.abs(samples).max() < SILENT_PEAK
        if full or too_short or digest in seen or name in written:
            continue
        soundfile.write(target / name, np.clip(samples, -1, 1), SAMPLE_RATE, subtype="PCM_16")
        written[name] = (name, sound.kind, seconds)
        seen.add(digest)
        total += seconds
        music += seconds if is_music else 0.0
    return sorted(written.values())


def get_package(source: Source, folder: Path) -> str:
    """Download, unpack and convert one package into its folder; says how many sounds it gave.

    Raises:
        RuntimeError: apt has no such package, the network is down, or nothing in it is wanted.
    """
    with (
        whole_package(folder, source.split, source.package) as target,
        unpacked((source.package,)) as (contents, version),
    ):
        unpack_resources(contents)
        written = convert(find_sounds(contents, source.rules), target)
        if not written:
            raise RuntimeError(f"version {version} holds no sound that the rules want")
        copy_licence(contents, source.package, target)
        rows = [
            (source.split, f"{source.split}/{source.package}/{file}", source.package, version, kind,
             source.licence, f"{seconds:.2f}")
            for file, kind, seconds in written
        ]  # fmt: skip
        write_table(target / "sounds.tsv", COLUMNS, rows)
    return f"{len(written)} sounds"


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch sounds that are no commands, from Debian.")
    parser.add_argument("folder", type=Path, help="where the sounds are written")
    parser.add_argument("--packages", nargs="+", metavar="NAME", help="only these (default: all)")
    arguments = parser.parse_args()
    known = {source.package: source for source in SOURCES}
    names = arguments.packages or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no such package in this list: {' '.join(unknown)}; it has {' '.join(known)}")
    if without_tools(parser.prog):
        return 1
    status = fetch_all(
        parser.prog,
        {name: known[name].split for name in names},
        arguments.folder,
        lambda name: get_package(known[name], arguments.folder),
    )
    rows = join_tables(arguments.folder, "sounds.tsv", COLUMNS)
    for split in ("training", "validation"):
        hours = sum(float(row[6]) for row in rows if row[0] == split) / 3600
        print(f"{split}: {hours:.2f} h", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
