"""The wordings of the held-out set: written by hand, none of them made by the training generators."""

from __future__ import annotations

GREET: dict[str, tuple[str, ...]] = {
    "hello": (
        "Hello, demo model!", "Hi there, how nice to see you", "Hey, anyone home?", "Good morning to you!",
        "hello llmctl demo", "Hi! First time here.", "Good evening to you all", "A very good afternoon!",
        "Hey hey, hello again", "Hi from Lisbon!",
    ),
    "how": (
        "How are you doing on this fine day?", "Hi, how are you feeling?",
        "So how have things been with you?",
        "Are you doing all right?", "Hope you are well, are you?", "How's your evening going?",
        "Hey! How are you this afternoon?", "hello there, how is your day going", "Everything good with you?",
    ),
    "bye": (
        "Okay, bye for today!", "I really have to go, goodbye!", "See you next time!", "Bye bye, little demo",
        "Good night, sleep well!", "Thanks and goodbye!", "I'm leaving now, see you around",
        "Catch you later, bye", "That's everything, goodbye then",
    ),
    "thanks": (
        "Thanks, that was a great help!", "Thank you, you are very kind", "Wonderful, thanks a million!",
        "ok thanks, that does it!!", "Thank you for the quick answer", "Many thanks to you",
        "Oh great, thank you so very much!",
        "thanks, I like that", "Perfect, thanks for explaining",
    ),
}  # fmt: skip
ABOUT: tuple[str, ...] = (
    "Who am I chatting with?", "What are you, some kind of AI?", "Are you a real language model?",
    "Which language model is answering me here?", "Tell me a little about yourself.",
    "Are you the same as ChatGPT?",
    "What sort of things can you do?", "Is this GPT-4 or something else?",
    "are you a big model or a small one", "Who created you, actually?",
    "Could you introduce yourself?", "What model am I using right now?", "Am I speaking with a human being?",
    "what's your name, if you have one?", "Why are your answers so simple?",
    "how many parameters have you got?",
    "Are you just a demo?", "Can you explain what you are?", "What is this demo?", "Who or what are you?",
    "How do I run a real model?", "How do I use a larger model than you?",
    "I'd like to talk to a proper model.",
    "How can I chat with Qwen instead of you?", "What do I type to start a real model?",
    "How would I load a model from Hugging Face?", "Can I use my own model with llmctl?",
    "Which command lets me chat with a bigger model?", "I want a smarter model, what should I do?",
    "How do I switch to another model?", "Please show me how to start a better model.",
    "How can I talk to a model from a local folder?", "Where do I get a real model from?",
    "is it possible to run llama here?", "I need a stronger model. How?", "Can llmctl run real models too?",
)  # fmt: skip
COMMAND_KEYS: dict[str, str] = {
    "chat": "terminal", "serve controller": "keeps track", "serve worker": "loads a model",
    "serve api": "openai",
    "models list": "lists", "models match": "family", "delta make": "difference", "delta apply": "full model",
    "compress": "smaller", "config show": "settings", "doctor": "checks",
}  # fmt: skip
COMMAND_ASKED: tuple[str, ...] = (
    "What does `llmctl <k>` do exactly?", "What would I use llmctl <k> for?", "In one sentence: llmctl <k>?",
    "Please explain what llmctl <k> is for.", "I just saw llmctl <k> in the help. What does it do?",
    "Can you tell me what the <k> command does?", "what is the llmctl <k> command all about",
    "When would somebody run llmctl <k>?", "Remind me what llmctl <k> does", "hi, what's llmctl <k> for?",
)  # fmt: skip
CAPITAL_ASKED: tuple[str, ...] = (
    "What is the capital of <c>, please?", "Which city is the capital of <c> these days?",
    "Could you remind me what the capital of <c> is?", "I'm planning a trip to <c>. What's the capital?",
    "Hi, what's the capital city of <c>?", "Do you happen to know the capital of <c>?",
    "what is the capital of <c> called again", "<c>'s capital is which city?",
    "Name the city that is the capital of <c>.", "My kid asks what the capital of <c> is.",
    "Let's try geography. Capital of <c>?", "Tell me, which city would be the capital of <c>?",
)  # fmt: skip
SUM_ASKED: tuple[str, ...] = (
    "What's <a> + <b> equal to?", "Can you work out <a> plus <b> for me?",
    "Please add <a> and <b> together for me.",
    "Hi, how much is <a> + <b>?", "what do I get if I add <a> to <b>", "Let me see, <a> + <b> = ???",
    "Maths: <a> plus <b>",
    "I had <a> apples and bought <b> more. How many apples do I have?", "Give me the total of <a> and <b>.",
)  # fmt: skip
DIFFERENCE_ASKED: tuple[str, ...] = (
    "What's <a> - <b> equal to?", "Can you work out <a> minus <b> for me?",
    "Please subtract <b> from <a> for me.",
    "Hi, how much is <a> - <b>?", "what do I get if I take <b> away from <a>", "Let me see, <a> - <b> = ???",
    "Maths: <a> minus <b>", "I had <a> pears and ate <b>. How many pears do I have left?",
    "Give me the difference between <a> and <b>.",
)  # fmt: skip
REPEAT_ASKED: tuple[str, ...] = (
    "Please repeat after me: <x>", "Repeat the following sentence: <x>", "Say exactly this: <x>",
    'Can you say "<x>" for me?', "Just echo these words back: <x>", 'Now repeat "<x>" please.',
    "I say, you repeat: <x>", "Write this back to me: <x>", 'Would you please repeat "<x>"?',
)  # fmt: skip
PHRASES: tuple[str, ...] = (
    "the quick brown fox jumps over the lazy dog", "Open the pod bay doors", "my bicycle has a flat tyre",
    "Tomorrow we sail at dawn", "seven silver spoons", "banana bread", "Strawberry ice cream is cold",
    "I never said that", "purple elephants can dance", "Where there is a will there is a way", "knock knock",
    "the train leaves at nine", "Good fences make good neighbours", "zig zag zoom",
    "A stitch in time saves nine",
    "all my ducks are in a row", "deep learning is fun", "Practice makes perfect", "the moon rises slowly",
    "Better late than never", "unladen swallow", "she sells sea shells", "We will meet again",
    "green tea with honey",
    "this is only a test", "Paper beats rock", "the library opens at ten", "hocus pocus",
    "Look before you leap",
    "old friends and new shoes", "no news is good news", "Winter is coming", "bright stars over the hill",
    "please mind the gap", "Honesty is the best policy", "two cats under one table",
)  # fmt: skip
NAMES: tuple[str, ...] = (
    "Matilda",
    "Gregory",
    "Beatrice",
    "Julian",
    "Winona",
    "Cedric",
    "Lorena",
    "Dominic",
    "Anouk",
    "Rafael",
    "Sylvia",
    "Marcus",
    "Penelope",
    "Ravi",
    "Soren",
    "Imogen",
    "Casper",
    "Delilah",
    "Ferdinand",
    "Margot",
    "Quentin",
    "Rosalind",
    "Silas",
    "Tabitha",
    "Ulysses",
    "Vivian",
    "Wesley",
    "Yvonne",
    "Zachary",
    "Adriana",
    "Benedict",
    "Camila",
    "Desmond",
    "Eleanor",
    "Florian",
    "Gwen",
    "Howard",
    "Isla",
    "Jerome",
    "Katrina",
)
NAME_TOLD: tuple[str, ...] = (
    "Hi! My name is <n>, how are you?", "Hello, I'm <n> from Canada.", "Hey there, my name's <n>!",
    "Good morning, I am <n> and I'm new here.", "You can call me <n>, by the way.",
    "My name is <n>, nice to meet you.",
    "Let me introduce myself, my name is <n>.", "So, I'm called <n>.",
)  # fmt: skip
COLOUR_TOLD: tuple[str, ...] = (
    "My favourite colour is <c>, just so you know.", "The colour that I like best is <c>.",
    "Did I tell you? My favorite color is <c>.", "I think <c> is my favourite colour.",
    "Well, my favourite color has always been <c>.", "I love <c>, it is my favourite colour.",
)  # fmt: skip
BOTH_TOLD: tuple[str, ...] = (
    "Hello! My name is <n> and my favourite colour is <c>, ok?",
    "I'm <n>. By the way, my favourite colour is <c>.",
    "Hi, I am <n> and I like the colour <c> best.", "My name's <n> and the colour I like most is <c>.",
)  # fmt: skip
NAME_ASKED: tuple[str, ...] = (
    "Do you still remember my name?", "Wait, what was my name again?",
    "Can you please tell me what my name is then?",
    "So, what is my name, could you say?", "Hey, what's my name?", "Quick test: what is my name?",
)  # fmt: skip
COLOUR_ASKED: tuple[str, ...] = (
    "Do you still remember my favourite colour?", "What was my favourite colour again, please?",
    "Can you tell me what my favorite color is?", "So, what is my favourite colour, please?",
    "And which colour is my favourite?", "Quick test: what's my favorite colour?",
)  # fmt: skip
BETWEEN: tuple[str, ...] = (
    "What is the capital of Spain, please?", "How much is 3 + 4, by the way?", "Thanks, that's good to know!",
    "Repeat this for me: sunny weather", "How's it going with you today?",
    "What would I use llmctl doctor for?",
    "Tell me, which city would be the capital of Japan?", "Maths: 9 minus 2", "Are you the demo of llmctl?",
    "What's the capital city of Egypt, do you know?", "Please repeat after me: blue sky",
    "Oh great, thanks a million!",
)  # fmt: skip
COLOURS: tuple[str, ...] = (
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "purple",
    "pink",
    "brown",
    "black",
    "turquoise",
)
STORY_ASKED: tuple[str, ...] = (
    "Tell me a short story about <n> and <a>, please.", "Please write a story about <n> and <a>.",
    "Could you make up a little story with <n> and <a> in it?", "I'd love a bedtime story about <n> and <a>.",
    "Write a very short story where <n> finds <a>.", "Can you tell a story about someone called <n> and <a>?",
    "A short story please, about <n> and <a>.", "Tell a story in which <n> has <a>.",
)  # fmt: skip
STORY_THINGS: tuple[str, ...] = (
    "hedgehog", "lantern", "kite", "compass", "submarine", "rabbit", "violin", "pancake", "old map", "cactus",
    "red balloon", "pelican", "typewriter", "golden key", "helicopter", "waterfall", "puppy", "umbrella",
    "accordion",
    "pretzel", "little boat", "silver ring", "tiger", "magic lamp", "teapot", "snowman", "bicycle",
    "green parrot",
    "suitcase", "pumpkin", "wooden horse", "tiny robot", "ladder", "blue door",
)  # fmt: skip
VOICES: dict[str, tuple[str, ...]] = {
    "upper": (
        "Answer in capital letters, please.", "You are a helpful assistant who answers in capital letters.",
        "You reply in upper case only.", "Please write every answer in capital letters.",
        "Always respond in capitals, whatever the user says.", "Respond to everything in ALL CAPS.",
    ),
    "pirate": (
        "You are a pirate and you talk like one.", "Answer like a pirate, please.",
        "Speak like a pirate would.",
        "You are an assistant that talks like a pirate.", "Please talk like an old pirate to the user.",
        "Respond in the way a pirate would speak.",
    ),
    "one": (
        "Answer with one word, please.", "You are an assistant that answers with one word.",
        "Please reply to everything with a single word.", "Give one-word answers to all questions.",
        "Your answers have exactly one word each.", "Respond using a single word, nothing else.",
    ),
}  # fmt: skip
