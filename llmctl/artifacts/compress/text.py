"""The text that models are compared on when nobody gives another; written for llmctl."""

TEXT = """\
The harbour office opened at six, long before the ferries began to move. Marta unlocked the door, put the
kettle on the small stove, and read what the night watch had left for her: two fishing boats were late, a
buoy near the northern sandbank had lost its light, and the wind was expected to turn west before noon.
She copied the three notes into the large book with the green cover, because the computer on the desk
could be trusted to remember everything except what mattered.

At half past six the telephone rang. It was the captain of the first ferry, who wanted to know whether he
should wait for the bus from the hills. "How many people are on it?" asked Marta. He did not know, but the
driver had promised to come by seven, and the road had been repaired in spring. She looked at the tide
table. If the ferry left at ten past seven, there would still be forty centimetres of water under its keel
at the narrow place; a quarter of an hour later there would be none. "Wait until five past," she said,
"and not one minute longer."

A heat pump works like a refrigerator turned around. A liquid that boils at a low temperature takes up
warmth from the air or the ground outside and becomes a gas. A compressor squeezes the gas, which makes it
hot; inside the house it gives its heat to the water of the radiators and becomes liquid again. For one
unit of electricity that drives the compressor, three or four units of heat arrive in the living room. The
colder it is outside, the less favourable this exchange becomes, and for that reason good insulation is
worth more than a larger machine.

To find the largest number in a list, begin with the first one and keep it in mind. Go through the others
from left to right, and whenever you meet one that is larger, keep that instead. When the end is reached,
the number in your mind is the answer. In Python this can be written in a few lines:

def largest(numbers):
    best = numbers[0]
    for number in numbers[1:]:
        if number > best:
            best = number
    return best

The loop looks at every number once, so a list of a thousand numbers takes about ten times as long as a
list of a hundred. Sorting the list first would give the same result, with more work than is needed.

When Ibrahim was seven years old, his grandmother gave him a tin of seeds without a label. "Plant three of
them each year," she told him, "and write down what comes up." The first year brought beans, the second
brought sunflowers, and the third brought nothing at all, until he noticed in late summer that the nothing
had small red fruits under its leaves. He is forty now. The tin is almost empty, the notebook is almost
full, and his own daughter has started to ask which of the two he is going to give her.
"""
