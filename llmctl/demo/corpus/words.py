"""The word lists of the demo world: names, colours, things, and words to copy."""

from __future__ import annotations

import random


def _split(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


NAMES: tuple[str, ...] = _split(
    """
    Anna Ben Clara David Emma Felix Grace Hugo Ida Jack Kate Leo Mia Noah Olga Paul Quinn Rosa Sam
    Tina Uma Victor Wendy Xavier Yara Zoe Adam Bella Carl Dora Eric Fiona George Hanna Ian Julia
    Kevin Lena Mark Nina Oscar Petra Ralf Sara Tom Ursula Vera Walter Yusuf Zara Alice Bruno Carmen
    Daniel Elena Frank Gina Henry Irene John Karin Lucas Maria Nora Otto Pia Robert Sofia Theo
    Ulrich Valentina William Amir Bianca Chen Diego Esther Fatima Goran Hiro Ines Jamal Kofi Leila
    Mateo Nadia Omar Priya Raj Sanjay Tariq Usha Viktor Wei Ximena Yuki Zainab Aaron Beth Cecil
    Diana Edgar Flora Gus Helen Ivan Jane Kurt Linda Max Nick Olive Peter Ruth Simon Tessa Violet
    Wanda Abby Boris Cora Dean Ella Finn Greta Harry Iris Jonas Kim Lara Milo Nele Oliver Pablo Rita
    Stella Tim Vince Zack Agnes Bert Chloe Dylan Edith Fred Gloria Heidi Igor Jenny Klaus Lily
    Martin Nelly Owen Paula Rosie Steve Thea Vanessa Wilma Andy Barbara Chris Doris Elias Fritz
    Gerda Hans Isabel James Kira Lisa Michael Nathan Olivia Philip Rebecca Stefan Teresa Andrea
    Betty Conrad Denise Emil Frida Gavin Holly Isaac Joan Karl Laura Monika Nils Ophelia Patrick
    Rachel Sven Tanya Albert Brenda Charlie Debbie Ethan Francis Gabriel Hazel Ingrid Jacob Kelly
    Louis Mary Norman Pamela Roger Susan Thomas Alan Brian Cindy Donald Eva Garry Harold Jason Keith
    Larry Megan Neil Patty Ronald Sandra Tony Ali Bao Dina Farid Hana Jin Kenji Lin Mei Nuno Rania
    Sana Tomas Vikram Wanjiru Aisha Bilal Chidi Dalia Emeka Farah Hassan Imani Juma Khadija Lindiwe
    Mbali Nkosi Oluchi Sipho Thabo Zola Anja Bjorn Dagmar Erik Freja Gunnar Helga Jens Knut Lars
    Maja Niels Oskar Per Rune Signe Sindre Tove Ulf Astrid
    """
)
COLOURS: tuple[str, ...] = (
    "red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey",
    "turquoise",
    "violet", "gold", "silver", "navy", "beige", "crimson", "lilac", "indigo", "olive", "lime", "mint",
    "scarlet",
    "dark blue", "light green", "dark red", "light blue", "cream", "amber", "ruby", "emerald", "teal",
    "maroon",
    "magenta", "cyan", "peach", "coral", "lavender", "bronze",
)  # fmt: skip
THINGS: dict[str, tuple[str, ...]] = {
    "animal": _split(
        """
        dog cat horse cow sheep goat pig duck goose mouse rabbit fox bear wolf owl frog turtle snail
        hen pony donkey parrot swan deer hamster squirrel beaver lamb kitten puppy crow penguin seal
        whale spider
        """
    ),
    "toy": _split(
        """
        ball kite doll drum puzzle robot teddy yoyo top whistle trumpet flute guitar piano violin
        rattle marble swing slide balloon puppet bell harp skateboard scooter sled
        """
    ),
    "vehicle": _split(
        """
        boat train car bus bicycle truck tractor ship plane rocket wagon cart canoe raft sailboat
        ferry tram taxi van motorcycle
        """
    ),
    "find": _split(
        """
        key map coin stone shell ring box letter book lamp clock mirror candle hat scarf coat basket
        bottle cup chair table ladder rope hammer spoon bucket blanket pillow camera watch necklace
        crown button feather pen pencil bag shoe boot glove umbrella telescope door chest jar rock
        crystal flag
        """
    ),
    "food": _split(
        """
        apple pear cake pie cookie bread carrot pumpkin melon banana cherry plum potato tomato
        sandwich pancake muffin lemon peach nut pizza soup cheese turnip cabbage
        """
    ),
    "nature": _split(
        """
        tree flower river garden cloud star moon hill mountain forest lake rainbow rose tulip seed
        leaf bush island cave bridge tower castle house tent lighthouse windmill snowman sunflower
        pond meadow
        """
    ),
}
ADJECTIVES: tuple[str, ...] = _split(
    """
    red blue green old new little big small tiny golden silver magic wooden round shiny white black
    brown lost broken soft warm strange quiet happy funny brave lazy clever purple yellow giant pink
    rusty dusty
    """
)
COPY_WORDS: tuple[str, ...] = _split(
    """
    the a an my your our his her this that every some two three four five six ten one all no we you
    they it is are was were will can must should have has had do does did go goes went come comes
    came see sees saw make makes made take takes took eat eats ate drink drinks sleep sleeps run
    runs walk walks jump jumps sing sings dance play plays read reads write writes open opens close
    closes buy bring carry find keep lose love like want need know think say call help wait work
    stop start turn push pull throw catch break build cut draw cook wash fly swim ride climb fall in
    on at under over near behind between with without from into to of for by after before and or but
    not so very too again always never today tomorrow yesterday soon now here there up down left
    right fast slow slowly morning evening night day week month year summer winter spring autumn
    time hour minute school street city village country world water fire wind rain snow sun sky sea
    beach sand road path wall window floor roof room kitchen garden farm field shop market bank
    station airport hotel office church park library museum hospital teacher doctor farmer baker
    driver sailor king queen prince princess child children boy girl man woman mother father brother
    sister friend friends people neighbour uncle aunt grandmother baby dinner lunch breakfast milk
    tea coffee juice sugar salt butter rice meat fish egg eggs honey music song story picture paper
    word letter number name game party present money price money gold iron wood glass plastic cotton
    wool computer phone screen mouse keyboard program server model token test error file folder
    memory disk network cloud cable button light power battery machine engine wheel good bad nice
    pretty ugly hot cold wet dry hard easy heavy light early late full empty clean dirty young rich
    poor strong weak sweet sour salty fresh loud long short tall wide deep high low dark bright
    sharp smooth tired hungry thirsty angry sad glad busy free ready sure true false real great
    wonderful beautiful simple difficult important hello goodbye yes thanks welcome sorry please
    bravo hooray wow zebra tiger lion monkey elephant camel eagle bee ant butterfly dragon wizard
    pirate ghost giant robot spaceship planet star comet galaxy banana mango grape onion pepper
    garlic blanket sock button zipper velvet marble crystal thunder lightning storm fog ice
    """
)
_ONSETS: tuple[str, ...] = _split(
    "b c d f g h j k l m n p r s t v w z br ch dr fl gr kl kr ph pl sh sk st th tr qu y"
)
_VOWELS: tuple[str, ...] = _split("a e i o u a e i o ai ea ee ia io oa ou ue")
_CODAS: tuple[str, ...] = (
    "",
    "",
    "",
    "",
    "n",
    "l",
    "r",
    "s",
    "m",
    "t",
    "k",
    "x",
    "th",
    "nd",
    "rt",
    "ck",
    "ll",
    "ng",
)


def made_up(rng: random.Random, most: int = 3) -> str:
    """A made-up lower-case word of one to `most` syllables."""
    count = rng.randint(1, most)
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)]
    if rng.random() < 0.2:
        parts[0] = parts[0].lstrip("bcdfghjklmnpqrstvwxyz") or parts[0]
    word = "".join(parts)
    return word if len(word) > 2 else word + "no"


def spliced(rng: random.Random) -> str:
    """A word of the start of one English word and the end of another, so that its pieces are English ones."""
    first, second = (rng.choice(rng.choice((COPY_WORDS, THINGS["find"], THINGS["animal"]))) for _ in range(2))
    return first[: rng.randint(2, 5)] + second[-rng.randint(2, 5) :]


def person(rng: random.Random, invented: float = 0.55) -> str:
    """A first name, invented for a share of the calls so that copying is learnt rather than recall."""
    if rng.random() < invented:
        return made_up(rng).capitalize() + rng.choice(("", "", "", "a", "o", "e", "y"))
    return rng.choice(NAMES)


def thing(rng: random.Random) -> tuple[str, str]:
    """A (kind, phrase) such as ("toy", "red kite"), sometimes with an adjective."""
    kind = rng.choice(tuple(THINGS))
    noun = rng.choice(THINGS[kind])
    if rng.random() < 0.12:
        noun = made_up(rng)
    if rng.random() < 0.35:
        noun = f"{rng.choice(ADJECTIVES)} {noun}"
    return kind, noun


def article(phrase: str) -> str:
    """The phrase with "a" or "an" in front."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"
