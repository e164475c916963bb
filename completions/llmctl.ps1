# PowerShell completion of llmctl, written by `llmctl completions powershell`. Nothing is run when TAB is pressed:
# names of models and sessions are read from small files that llmctl keeps.

Register-ArgumentCompleter -Native -CommandName 'llmctl', 'llmctl.exe' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    Set-StrictMode -Off

    # Offers: words, and @models, @sessions, @files, @folders; '' when anything goes, $null when there is no value.
    $table = @{
        'llmctl' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'chat'; Help = 'Chat with a model, or answer one prompt' }
                @{ Name = 'models'; Help = 'List, match, show, download, convert and upload models' }
                @{ Name = 'compress'; Help = 'Store a model''s weights in 8 or 4 bits' }
                @{ Name = 'delta'; Help = 'Make and apply deltas: what makes one model of another' }
                @{ Name = 'lora'; Help = 'Merge LoRA adapters, or make one of two models' }
                @{ Name = 'logs'; Help = 'Look at past conversations, export or delete them' }
                @{ Name = 'config'; Help = 'Look at the settings' }
                @{ Name = 'bench'; Help = 'Measure speed on this machine' }
                @{ Name = 'serve'; Help = 'Serve models to OpenAI clients: a worker alone, or a fleet' }
                @{ Name = 'doctor'; Help = 'Say what llmctl finds on this machine' }
                @{ Name = 'completions'; Help = 'Print the completion script of a shell' }
            )
            Flags = @(
                @{ Names = @('--version', '-V'); Offers = $null; Help = 'Print the version' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl chat' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('-p', '--prompt'); Offers = ''; Help = 'Answer this and leave' }
                @{ Names = @('-f', '--file'); Offers = '@files'; Help = 'Text before the prompt; - is stdin' }
                @{ Names = @('-s', '--system'); Offers = ''; Help = 'System message' }
                @{ Names = @('--messages'); Offers = '@files'; Help = 'JSON list of messages to answer; - is stdin' }
                @{ Names = @('--raw'); Offers = $null; Help = 'Go on with the text as it is, no template' }
                @{ Names = @('--template'); Offers = '@files'; Help = 'Chat template instead of the model''s: a Jinja file, or a name' }
                @{ Names = @('--adapter-file'); Offers = '@files'; Help = 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable' }
                @{ Names = @('-x', '--extract'); Offers = $null; Help = 'Only the answer''s last code block' }
                @{ Names = @('--json'); Offers = $null; Help = 'Answer, counts and times as JSON; errors too' }
                @{ Names = @('--style'); Offers = 'rich simple programmatic'; Help = 'rich: markdown; simple: bare text; programmatic: JSON lines in and out' }
                @{ Names = @('--plain'); Offers = $null; Help = 'No markdown, colour or line editing of our own' }
                @{ Names = @('--hide-reasoning'); Offers = $null; Help = 'Leave out what the model says to itself first' }
                @{ Names = @('--thinking', '--no-thinking'); Offers = $null; Help = 'Have the model reason first, or not; left out, as its template has it' }
                @{ Names = @('-c', '--continue'); Offers = $null; Help = 'Go on with the last conversation' }
                @{ Names = @('--session'); Offers = '@sessions'; Help = 'Go on with the conversation of this name, or begin it' }
                @{ Names = @('--no-log'); Offers = $null; Help = 'Keep nothing of what is said' }
                @{ Names = @('--no-history'); Offers = $null; Help = 'Neither offer nor keep typed lines' }
                @{ Names = @('--url'); Offers = ''; Help = 'Talk to this OpenAI-compatible server instead of loading a model' }
                @{ Names = @('--api-key-file'); Offers = '@files'; Help = 'File with its key; else LLMCTL_API_KEY or OPENAI_API_KEY' }
                @{ Names = @('--timeout'); Offers = ''; Help = 'Silence after which it is given up; 60 if not set' }
                @{ Names = @('--temperature'); Offers = ''; Help = '0 is greedy; left out, the model''s own' }
                @{ Names = @('--top-p'); Offers = ''; Help = 'Only the likeliest tokens that together reach this probability' }
                @{ Names = @('--top-k'); Offers = ''; Help = 'Only the k likeliest tokens; 0 is all' }
                @{ Names = @('--min-p'); Offers = ''; Help = 'Only tokens of at least this share of the likeliest' }
                @{ Names = @('--repetition-penalty'); Offers = ''; Help = 'Above 1 discourages what prompt and answer hold' }
                @{ Names = @('--presence-penalty'); Offers = ''; Help = 'Lowers tokens that the answer already holds' }
                @{ Names = @('--frequency-penalty'); Offers = ''; Help = 'The same, for each time that they occur' }
                @{ Names = @('--seed'); Offers = ''; Help = 'The same seed gives the same answer' }
                @{ Names = @('--max-new-tokens'); Offers = ''; Help = 'Longest answer in tokens; left out, what the context holds' }
                @{ Names = @('--stop'); Offers = ''; Help = 'End before this text; repeatable' }
                @{ Names = @('--stop-token-id'); Offers = ''; Help = 'End at this token; repeatable' }
                @{ Names = @('--logprobs'); Offers = ''; Help = 'Log-probabilities, of so many likeliest too (--json)' }
                @{ Names = @('--device'); Offers = 'auto cuda xpu npu mps cpu'; Help = 'Where the model runs; auto is the best there is' }
                @{ Names = @('--dtype'); Offers = 'auto float32 bfloat16 float16'; Help = 'Numbers that it computes in' }
                @{ Names = @('--load-8bit'); Offers = $null; Help = 'Pack the weights into 8 bits while they load' }
                @{ Names = @('--load-4bit'); Offers = $null; Help = 'Pack them into 4 bits, the way that is fastest here' }
                @{ Names = @('--quantization'); Offers = 'int8 int4 nf4 fp4 none'; Help = 'Pack them so, or the format that the checkpoint must have (gptq, awq, ...); none: as it is stored' }
                @{ Names = @('--num-gpus'); Offers = ''; Help = 'Spread the model over so many GPUs; 1 if not set' }
                @{ Names = @('--gpus'); Offers = ''; Help = 'Use these GPUs: 0,2' }
                @{ Names = @('--max-gpu-memory'); Offers = ''; Help = 'Most weights on each GPU: 20GiB' }
                @{ Names = @('--cpu-offloading'); Offers = $null; Help = 'Keep packed weights that no GPU has room for on the CPU' }
                @{ Names = @('--quant-config'); Offers = ''; Help = 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable' }
                @{ Names = @('--context'); Offers = ''; Help = 'Limit on prompt and answer together; left out, the model''s' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--trust-remote-code'); Offers = $null; Help = 'Run Python code of the model''s repository' }
                @{ Names = @('--delta'); Offers = ''; Help = 'Apply this delta to MODEL while it loads, llmctl''s or FastChat''s: a folder, or a hub id' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'list'; Help = 'List model families, or the models on this machine' }
                @{ Name = 'match'; Help = 'Say how a model is prompted, stopped and loaded, and why' }
                @{ Name = 'show'; Help = 'Show what a checkpoint is and whether it fits' }
                @{ Name = 'pull'; Help = 'Download models, or what is missing of them' }
                @{ Name = 'convert'; Help = 'Write a model''s weights in other numbers, in shards of another size, or as safetensors' }
                @{ Name = 'push'; Help = 'Upload a folder to the hub: a model, a delta or an adapter' }
                @{ Name = 'rm'; Help = 'Remove a downloaded model from the cache' }
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models list' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--family'); Offers = ''; Help = 'Only this family' }
                @{ Names = @('--kind'); Offers = 'decoder encoder-decoder embedding reranker vision-language api'; Help = 'Only families of this kind' }
                @{ Names = @('--search'); Offers = ''; Help = 'Only what holds all these words, in any column' }
                @{ Names = @('--local'); Offers = $null; Help = 'Models on this machine: embedded or downloaded' }
                @{ Names = @('--adapter-file'); Offers = '@files'; Help = 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models match' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $true
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--explain'); Offers = $null; Help = 'All families that fit, and why' }
                @{ Names = @('--render'); Offers = '@files'; Help = 'Print the prompt of this JSON conversation; without a file, of a short one' }
                @{ Names = @('--template'); Offers = '@files'; Help = 'A Jinja file or a template''s name, before all' }
                @{ Names = @('--adapter-file'); Offers = '@files'; Help = 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models show' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--memory'); Offers = ''; Help = 'Judge by this much memory: 16GiB, 24GB' }
                @{ Names = @('--context'); Offers = ''; Help = 'Tokens of prompt and answer; 4096 or the model''s' }
                @{ Names = @('--device'); Offers = 'auto cuda xpu npu mps cpu'; Help = 'Judge by this device; with --memory one that is not here' }
                @{ Names = @('--dtype'); Offers = 'auto float32 bfloat16 float16'; Help = 'Numbers that it computes in' }
                @{ Names = @('--load-8bit'); Offers = $null; Help = 'Pack the weights into 8 bits while they load' }
                @{ Names = @('--load-4bit'); Offers = $null; Help = 'Pack them into 4 bits, the way that is fastest here' }
                @{ Names = @('--quantization', '--quant'); Offers = 'int8 int4 nf4 fp4 none'; Help = 'Judge as if packed so while it loads; none: as it is stored' }
                @{ Names = @('--num-gpus'); Offers = ''; Help = 'Spread the model over so many GPUs; 1 if not set' }
                @{ Names = @('--gpus'); Offers = ''; Help = 'Use these GPUs: 0,2' }
                @{ Names = @('--max-gpu-memory'); Offers = ''; Help = 'Most weights on each GPU: 20GiB' }
                @{ Names = @('--cpu-offloading'); Offers = $null; Help = 'Keep packed weights that no GPU has room for on the CPU' }
                @{ Names = @('--quant-config'); Offers = ''; Help = 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--trust-remote-code'); Offers = $null; Help = 'Run Python code of the model''s repository' }
                @{ Names = @('--plan'); Offers = $null; Help = 'Show how it would be loaded, and why, instead' }
                @{ Names = @('--engine'); Offers = $null; Help = 'Show how the engine would run it, and why, instead' }
                @{ Names = @('--adapter-file'); Offers = '@files'; Help = 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models pull' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $true
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models convert' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--out'); Offers = '@folders'; Help = 'The folder to write' }
                @{ Names = @('--dtype'); Offers = 'float32 bfloat16 float16'; Help = 'Numbers of the result; left out, every bit stays' }
                @{ Names = @('--max-shard-size'); Offers = ''; Help = 'Most weights in one file' }
                @{ Names = @('--overwrite'); Offers = $null; Help = 'Replace the folder, once the new one is whole' }
                @{ Names = @('--dry-run'); Offers = $null; Help = 'Only say what would be done' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models push' = @{
            Arguments = @('@folders', '')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--private'); Offers = $null; Help = 'Make the repository for your eyes only' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Upload to this branch; main if not set' }
                @{ Names = @('--message'); Offers = ''; Help = 'What the commit says' }
                @{ Names = @('--dry-run'); Offers = $null; Help = 'Only say what would be done' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl models rm' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--revision'); Offers = ''; Help = 'Remove only this branch, tag or commit' }
                @{ Names = @('--yes', '-y'); Offers = $null; Help = 'Do not ask' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl compress' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--method'); Offers = 'int8 int4 fp8 nf4 gptq awq'; Help = 'How the weights are stored; gptq and awq need the package gptqmodel' }
                @{ Names = @('--out'); Offers = '@folders'; Help = 'The folder to write' }
                @{ Names = @('--group-size'); Offers = ''; Help = 'Weights that share a scale: 32, 64 or 128; left out, the one that divides most rows' }
                @{ Names = @('--skip'); Offers = ''; Help = 'Leave layers alone whose name this regular expression finds; repeatable' }
                @{ Names = @('--calibration'); Offers = '@files'; Help = 'Text like what the model will meet: int4 rounds by it, which takes a while' }
                @{ Names = @('--eval'); Offers = '@files'; Help = 'Text to judge by; left out, llmctl''s own' }
                @{ Names = @('--no-eval'); Offers = $null; Help = 'Do not judge' }
                @{ Names = @('--max-shard-size'); Offers = ''; Help = 'Most weights in one file' }
                @{ Names = @('--overwrite'); Offers = $null; Help = 'Replace the folder, once the new one is whole' }
                @{ Names = @('--dry-run'); Offers = $null; Help = 'Only say what would be done' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl delta' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'make'; Help = 'Write what turns one model into another' }
                @{ Name = 'apply'; Help = 'Write the model that a delta makes of its base' }
                @{ Name = 'show'; Help = 'Show what a delta is: its base and target, what differs, how large it is' }
                @{ Name = 'verify'; Help = 'Read all of a delta, and of its base and target where given, and say what is not as it was' }
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl delta make' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--base'); Offers = '@models @folders'; Help = 'The model that it starts from' }
                @{ Names = @('--target'); Offers = '@models @folders'; Help = 'The model that it leads to' }
                @{ Names = @('--out'); Offers = '@folders'; Help = 'The folder to write' }
                @{ Names = @('--format'); Offers = 'exact add'; Help = 'exact: the target comes back bit for bit; add: float16 differences, as FastChat has them' }
                @{ Names = @('--exclude'); Offers = ''; Help = 'Leave tensors as the base has them whose name this regular expression finds; repeatable' }
                @{ Names = @('--hub-repo-id'); Offers = ''; Help = 'Upload it to the hub too: owner/name' }
                @{ Names = @('--private'); Offers = $null; Help = 'Make the repository for your eyes only' }
                @{ Names = @('--max-shard-size'); Offers = ''; Help = 'Most weights in one file' }
                @{ Names = @('--overwrite'); Offers = $null; Help = 'Replace the folder, once the new one is whole' }
                @{ Names = @('--dry-run'); Offers = $null; Help = 'Only say what would be done' }
                @{ Names = @('--base-revision'); Offers = ''; Help = 'Branch, tag or commit of the base on the hub' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit of the target on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl delta apply' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--base'); Offers = '@models @folders'; Help = 'The model that it starts from' }
                @{ Names = @('--delta'); Offers = ''; Help = 'A folder that `llmctl delta make` wrote, or a hub id' }
                @{ Names = @('--out'); Offers = '@folders'; Help = 'The folder to write' }
                @{ Names = @('--max-shard-size'); Offers = ''; Help = 'Most weights in one file; left out, the files are as they were' }
                @{ Names = @('--overwrite'); Offers = $null; Help = 'Replace the folder, once the new one is whole' }
                @{ Names = @('--dry-run'); Offers = $null; Help = 'Only say what would be done' }
                @{ Names = @('--base-revision'); Offers = ''; Help = 'Branch, tag or commit of the base on the hub' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl delta show' = @{
            Arguments = @('')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl delta verify' = @{
            Arguments = @('')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--base'); Offers = '@models @folders'; Help = 'Is this the base that it was made from?' }
                @{ Names = @('--target'); Offers = '@models @folders'; Help = 'Is this the target, bit for bit?' }
                @{ Names = @('--base-revision'); Offers = ''; Help = 'Branch, tag or commit of the base on the hub' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl lora' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'merge'; Help = 'Merge a LoRA adapter into its base: a checkpoint that needs no adapter any more' }
                @{ Name = 'extract'; Help = 'Make a LoRA adapter of the difference of two models, as peft and vLLM read it' }
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl lora merge' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--adapter'); Offers = ''; Help = 'The adapter: a folder that peft saved, or a hub id' }
                @{ Names = @('--out'); Offers = '@folders'; Help = 'The folder to write' }
                @{ Names = @('--base'); Offers = '@models @folders'; Help = 'Its base: a folder, `demo`, or a hub id; left out, the one that the adapter names' }
                @{ Names = @('--max-shard-size'); Offers = ''; Help = 'Most weights in one file' }
                @{ Names = @('--overwrite'); Offers = $null; Help = 'Replace the folder, once the new one is whole' }
                @{ Names = @('--dry-run'); Offers = $null; Help = 'Only say what would be done' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl lora extract' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--base'); Offers = '@models @folders'; Help = 'What it was tuned from: a folder, `demo`, or a hub id' }
                @{ Names = @('--target'); Offers = '@models @folders'; Help = 'The tuned model: a folder, `demo`, or a hub id' }
                @{ Names = @('--out'); Offers = '@folders'; Help = 'The folder to write' }
                @{ Names = @('--rank'); Offers = ''; Help = 'Rank of the adapter''s matrices' }
                @{ Names = @('--overwrite'); Offers = $null; Help = 'Replace the folder, once the new one is whole' }
                @{ Names = @('--dry-run'); Offers = $null; Help = 'Only say what would be done' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl logs' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'list'; Help = 'List conversations, the most recent first' }
                @{ Name = 'show'; Help = 'Show a conversation as markdown' }
                @{ Name = 'search'; Help = 'Search conversations for words, the newest message first' }
                @{ Name = 'export'; Help = 'Write a conversation to stdout or to a file' }
                @{ Name = 'delete'; Help = 'Delete conversations for good' }
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl logs list' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('-n', '--limit'); Offers = ''; Help = 'At most so many; 0 is all' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl logs show' = @{
            Arguments = @('@sessions')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--all'); Offers = $null; Help = 'Show what was undone, too' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl logs search' = @{
            Arguments = @('')
            IsLastRepeatable = $true
            Commands = @(
            )
            Flags = @(
                @{ Names = @('-n', '--limit'); Offers = ''; Help = 'At most so many; 0 is all' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl logs export' = @{
            Arguments = @('@sessions')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--format'); Offers = 'md json'; Help = 'json can be loaded again; left out, a FILE ending in .json gets it, else md' }
                @{ Names = @('-o', '--output'); Offers = '@files'; Help = 'Left out, or -, stdout' }
                @{ Names = @('--all'); Offers = $null; Help = 'With what was undone, too' }
                @{ Names = @('--force'); Offers = $null; Help = 'Replace FILE if it exists' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl logs delete' = @{
            Arguments = @('@sessions')
            IsLastRepeatable = $true
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--all'); Offers = $null; Help = 'Delete every conversation' }
                @{ Names = @('--before'); Offers = ''; Help = 'Delete those not used since that day began' }
                @{ Names = @('--yes', '-y'); Offers = $null; Help = 'Do not ask' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl config' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'show'; Help = 'Show every setting in force and where it comes from' }
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl config show' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--origin'); Offers = $null; Help = 'Say where each value comes from' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl bench' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'layers'; Help = 'Time quantised layers against dense ones, over one block of a model' }
                @{ Name = 'engine'; Help = 'Time the engine: decode, prefill, many clients, memory' }
                @{ Name = 'serve'; Help = 'Time a server under load: first token, inter-token, throughput' }
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl bench layers' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--shape'); Offers = 'demo qwen2-0.5b qwen3-0.6b qwen2.5-1.5b llama-1b gemma-2b mistral-7b llama-8b qwen2.5-7b llama-70b'; Help = 'The model whose block is measured' }
                @{ Names = @('--rows'); Offers = ''; Help = 'How many rows at a time: 1 is a token, 512 a prompt' }
                @{ Names = @('--method'); Offers = ''; Help = 'Quantised kernels: int8, int4, nf4, fp4' }
                @{ Names = @('--device'); Offers = 'auto cuda xpu npu mps cpu'; Help = 'Where the model runs; auto is the best there is' }
                @{ Names = @('--seconds'); Offers = ''; Help = 'Time for a block at one number of rows; more is steadier' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl bench engine' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--shape'); Offers = 'demo qwen2-0.5b qwen3-0.6b qwen2.5-1.5b llama-1b gemma-2b mistral-7b llama-8b qwen2.5-7b llama-70b'; Help = 'A random model of this shape, made in memory; qwen2-0.5b if nothing is named' }
                @{ Names = @('--tokenizer'); Offers = '@folders'; Help = 'A real tokenizer for --shape, so that text is made too' }
                @{ Names = @('--dtype'); Offers = ''; Help = 'What the weights are kept in: bf16, int8, int4, nf4, fp4' }
                @{ Names = @('--batch'); Offers = 'none'; Help = 'Sequences that decode together; clients of --mix are 16 if named here, else the most' }
                @{ Names = @('--prefill'); Offers = 'none'; Help = 'Lengths of single prompts; 16 of 115 come with them' }
                @{ Names = @('--mix'); Offers = 'none'; Help = 'Tokens of prompt and answer of clients that come back' }
                @{ Names = @('--long'); Offers = 'waiting context generation all none'; Help = '2,000 that wait, a context of 32,000 tokens, an answer of 10,000: minutes each' }
                @{ Names = @('--against'); Offers = 'transformers'; Help = 'Measure in turn with its `generate`: bfloat16, greedy, one sequence' }
                @{ Names = @('--device'); Offers = 'auto cuda xpu npu mps cpu'; Help = 'Where the model runs; auto is the best there is' }
                @{ Names = @('--trust-remote-code'); Offers = $null; Help = 'Run Python code of the model''s repository' }
                @{ Names = @('--seconds'); Offers = ''; Help = 'Time for the turns of one row; more is steadier' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl bench serve' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--url'); Offers = ''; Help = 'The server: OpenAI-compatible' }
                @{ Names = @('--model'); Offers = ''; Help = 'Its model; else its first' }
                @{ Names = @('--api-key-file'); Offers = '@files'; Help = 'File with its key; else LLMCTL_API_KEY or OPENAI_API_KEY' }
                @{ Names = @('--timeout'); Offers = ''; Help = 'Silence after which it is given up; 60 if not set' }
                @{ Names = @('--against'); Offers = ''; Help = 'Then put the same load on this one, and tell the ratio' }
                @{ Names = @('--against-model'); Offers = ''; Help = 'What the model is called there; else as --model says' }
                @{ Names = @('--against-api-key-file'); Offers = '@files'; Help = 'File with the key of that one; else the variables' }
                @{ Names = @('--concurrency'); Offers = ''; Help = 'Clients that come back when they have their answer; 16 if not set' }
                @{ Names = @('--rate'); Offers = ''; Help = 'Instead: so many requests a second, whether or not the server keeps up' }
                @{ Names = @('--requests'); Offers = ''; Help = 'How many; if not set 4 of a client, or 64' }
                @{ Names = @('--mix'); Offers = ''; Help = 'Tokens of random prompts and of answers; 115:48 if not set' }
                @{ Names = @('--prompts'); Offers = '@files'; Help = 'Real prompts: one a line, or lines of JSON with "prompt" or "messages"' }
                @{ Names = @('--max-tokens'); Offers = ''; Help = 'Tokens of an answer to --prompts; 128 if not set' }
                @{ Names = @('--endpoint'); Offers = 'completions chat'; Help = 'Where to ask; else completions, and chat for --prompts' }
                @{ Names = @('--seed'); Offers = ''; Help = 'Of the moments of --rate' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
                @{ Name = 'up'; Help = 'Start a whole fleet on this machine, and watch over it' }
                @{ Name = 'ps'; Help = 'List the fleets that run on this machine' }
                @{ Name = 'stop'; Help = 'Stop a fleet of this machine' }
                @{ Name = 'worker'; Help = 'Serve models to OpenAI clients, by itself or as a part of a fleet' }
                @{ Name = 'controller'; Help = 'Keep the table of a fleet: who serves what, and how busy it is' }
                @{ Name = 'api'; Help = 'Serve OpenAI clients from the workers of a fleet' }
                @{ Name = 'status'; Help = 'Show the workers of a fleet, their models and their load' }
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve up' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $true
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--workers'); Offers = ''; Help = 'Processes for each model; 1: one for all models together' }
                @{ Names = @('--apart'); Offers = $null; Help = 'With one worker too, a process for each model' }
                @{ Names = @('--host'); Offers = ''; Help = 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token' }
                @{ Names = @('--port'); Offers = ''; Help = '0 is one that is free' }
                @{ Names = @('--controller-port'); Offers = ''; Help = 'Of the controller; 0 is one that is free' }
                @{ Names = @('--api-key-file'); Offers = '@files'; Help = 'Keys of clients, one a line, plain or sha256:HEX; repeatable' }
                @{ Names = @('--allowed-origin'); Offers = ''; Help = 'Web pages from there may ask, ''*'' is all; repeatable' }
                @{ Names = @('--timeout'); Offers = ''; Help = 'How long a worker may be silent in an answer; 600 if not set' }
                @{ Names = @('--dispatch-method'); Offers = 'least-wait lottery prefix'; Help = 'Which worker takes a request: the least expected wait, a draw by free places, or the one that has the prompt''s beginning cached' }
                @{ Names = @('--drain'); Offers = ''; Help = 'How long open requests may go on at the end' }
                @{ Names = @('--detach'); Offers = $null; Help = 'Return when all is served; llmctl serve stop ends the fleet' }
                @{ Names = @('--template'); Offers = '@files'; Help = 'Chat template instead of the model''s; of several models MODEL=FILE|NAME' }
                @{ Names = @('--task'); Offers = 'auto generate embed classify'; Help = 'What a model is to do, auto: by its files; of several models MODEL=TASK' }
                @{ Names = @('--delta'); Offers = ''; Help = 'Apply it to the model while it loads, a folder or hub id; of several models MODEL=DELTA' }
                @{ Names = @('--adapter-file'); Offers = '@files'; Help = 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable' }
                @{ Names = @('--max-running'); Offers = ''; Help = 'Requests that run at once in a worker; left out, as suits the device' }
                @{ Names = @('--max-waiting'); Offers = ''; Help = 'Requests that may wait in a worker, 512 if not set; more are told 429' }
                @{ Names = @('--max-step-tokens'); Offers = ''; Help = 'Tokens that are computed together; left out, as suits the device' }
                @{ Names = @('--kv-memory'); Offers = ''; Help = 'Memory for keys and values of each model: 4GiB; left out, what is free' }
                @{ Names = @('--no-prefix-cache'); Offers = $null; Help = 'Compute what prompts have in common anew each time' }
                @{ Names = @('--seed'); Offers = ''; Help = 'The same seed gives the same answer' }
                @{ Names = @('--device'); Offers = 'auto cuda xpu npu mps cpu'; Help = 'Where the model runs; auto is the best there is' }
                @{ Names = @('--dtype'); Offers = 'auto float32 bfloat16 float16'; Help = 'Numbers that it computes in' }
                @{ Names = @('--load-8bit'); Offers = $null; Help = 'Pack the weights into 8 bits while they load' }
                @{ Names = @('--load-4bit'); Offers = $null; Help = 'Pack them into 4 bits, the way that is fastest here' }
                @{ Names = @('--quantization'); Offers = 'int8 int4 nf4 fp4 none'; Help = 'Pack them so, or the format that the checkpoint must have (gptq, awq, ...); none: as it is stored' }
                @{ Names = @('--num-gpus'); Offers = ''; Help = 'Spread the model over so many GPUs; 1 if not set' }
                @{ Names = @('--gpus'); Offers = ''; Help = 'Use these GPUs: 0,2' }
                @{ Names = @('--max-gpu-memory'); Offers = ''; Help = 'Most weights on each GPU: 20GiB' }
                @{ Names = @('--cpu-offloading'); Offers = $null; Help = 'Keep packed weights that no GPU has room for on the CPU' }
                @{ Names = @('--quant-config'); Offers = ''; Help = 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable' }
                @{ Names = @('--context'); Offers = ''; Help = 'Limit on prompt and answer together; left out, the model''s' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--trust-remote-code'); Offers = $null; Help = 'Run Python code of the model''s repository' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve ps' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve stop' = @{
            Arguments = @('')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--all'); Offers = $null; Help = 'End all fleets of this machine' }
                @{ Names = @('--now'); Offers = $null; Help = 'Do not wait for open requests' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve worker' = @{
            Arguments = @('@models @folders')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--model'); Offers = '@models @folders'; Help = 'A further model; A,B=MODEL has two names' }
                @{ Names = @('--template'); Offers = '@files'; Help = 'Chat template instead of the model''s; of several models MODEL=FILE|NAME' }
                @{ Names = @('--task'); Offers = 'auto generate embed classify'; Help = 'What a model is to do, auto: by its files; of several models MODEL=TASK' }
                @{ Names = @('--delta'); Offers = ''; Help = 'Apply it to the model while it loads, a folder or hub id; of several models MODEL=DELTA' }
                @{ Names = @('--adapter-file'); Offers = '@files'; Help = 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable' }
                @{ Names = @('--host'); Offers = ''; Help = 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token' }
                @{ Names = @('--port'); Offers = ''; Help = '0 is one that is free' }
                @{ Names = @('--api-key-file'); Offers = '@files'; Help = 'Keys of clients, one a line, plain or sha256:HEX; repeatable' }
                @{ Names = @('--drain'); Offers = ''; Help = 'How long open requests may go on at the end' }
                @{ Names = @('--controller'); Offers = ''; Help = 'Report to this controller; repeatable' }
                @{ Names = @('--token-file'); Offers = '@files'; Help = 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it' }
                @{ Names = @('--worker-address'); Offers = ''; Help = 'Where gateways reach this worker; left out, where it listens' }
                @{ Names = @('--max-running'); Offers = ''; Help = 'Requests that run at once in a worker; left out, as suits the device' }
                @{ Names = @('--max-waiting'); Offers = ''; Help = 'Requests that may wait in a worker, 512 if not set; more are told 429' }
                @{ Names = @('--max-step-tokens'); Offers = ''; Help = 'Tokens that are computed together; left out, as suits the device' }
                @{ Names = @('--kv-memory'); Offers = ''; Help = 'Memory for keys and values of each model: 4GiB; left out, what is free' }
                @{ Names = @('--no-prefix-cache'); Offers = $null; Help = 'Compute what prompts have in common anew each time' }
                @{ Names = @('--seed'); Offers = ''; Help = 'The same seed gives the same answer' }
                @{ Names = @('--device'); Offers = 'auto cuda xpu npu mps cpu'; Help = 'Where the model runs; auto is the best there is' }
                @{ Names = @('--dtype'); Offers = 'auto float32 bfloat16 float16'; Help = 'Numbers that it computes in' }
                @{ Names = @('--load-8bit'); Offers = $null; Help = 'Pack the weights into 8 bits while they load' }
                @{ Names = @('--load-4bit'); Offers = $null; Help = 'Pack them into 4 bits, the way that is fastest here' }
                @{ Names = @('--quantization'); Offers = 'int8 int4 nf4 fp4 none'; Help = 'Pack them so, or the format that the checkpoint must have (gptq, awq, ...); none: as it is stored' }
                @{ Names = @('--num-gpus'); Offers = ''; Help = 'Spread the model over so many GPUs; 1 if not set' }
                @{ Names = @('--gpus'); Offers = ''; Help = 'Use these GPUs: 0,2' }
                @{ Names = @('--max-gpu-memory'); Offers = ''; Help = 'Most weights on each GPU: 20GiB' }
                @{ Names = @('--cpu-offloading'); Offers = $null; Help = 'Keep packed weights that no GPU has room for on the CPU' }
                @{ Names = @('--quant-config'); Offers = ''; Help = 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable' }
                @{ Names = @('--context'); Offers = ''; Help = 'Limit on prompt and answer together; left out, the model''s' }
                @{ Names = @('--revision'); Offers = ''; Help = 'Branch, tag or commit on the hub' }
                @{ Names = @('--trust-remote-code'); Offers = $null; Help = 'Run Python code of the model''s repository' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve controller' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--host'); Offers = ''; Help = 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token' }
                @{ Names = @('--port'); Offers = ''; Help = '0 is one that is free' }
                @{ Names = @('--token-file'); Offers = '@files'; Help = 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it' }
                @{ Names = @('--dispatch-method'); Offers = 'least-wait lottery prefix'; Help = 'Which worker takes a request: the least expected wait, a draw by free places, or the one that has the prompt''s beginning cached' }
                @{ Names = @('--interval'); Offers = ''; Help = 'Between two reports of a worker; three that are missed take it out' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve api' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--controller'); Offers = ''; Help = 'Whom to ask for workers; repeatable' }
                @{ Names = @('--host'); Offers = ''; Help = 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token' }
                @{ Names = @('--port'); Offers = ''; Help = '0 is one that is free' }
                @{ Names = @('--api-key-file'); Offers = '@files'; Help = 'Keys of clients, one a line, plain or sha256:HEX; repeatable' }
                @{ Names = @('--token-file'); Offers = '@files'; Help = 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it' }
                @{ Names = @('--open'); Offers = $null; Help = 'Ask clients on this machine for no key, though the fleet has a token' }
                @{ Names = @('--allowed-origin'); Offers = ''; Help = 'Web pages from there may ask, ''*'' is all; repeatable' }
                @{ Names = @('--timeout'); Offers = ''; Help = 'How long a worker may be silent in an answer' }
                @{ Names = @('--drain'); Offers = ''; Help = 'How long open requests may go on at the end' }
                @{ Names = @('--dispatch-method'); Offers = 'least-wait lottery prefix'; Help = 'Which worker takes a request; left out, as the controller says' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl serve status' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--controller'); Offers = ''; Help = 'Ask this one; repeatable' }
                @{ Names = @('--token-file'); Offers = '@files'; Help = 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it' }
                @{ Names = @('--watch'); Offers = $null; Help = 'Tell again every second, until Ctrl-C' }
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl doctor' = @{
            Arguments = @()
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('--json'); Offers = $null; Help = 'Print JSON; errors too, as one object on stderr' }
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
        'llmctl completions' = @{
            Arguments = @('bash zsh fish powershell')
            IsLastRepeatable = $false
            Commands = @(
            )
            Flags = @(
                @{ Names = @('-v', '--verbose'); Offers = $null; Help = 'Say what is chosen and why; twice for everything' }
                @{ Names = @('-q', '--quiet'); Offers = $null; Help = 'Errors only on stderr' }
                @{ Names = @('--debug'); Offers = $null; Help = 'Show a traceback with an error' }
                @{ Names = @('--color'); Offers = 'auto always never'; Help = 'Colour; auto looks at the terminal and NO_COLOR' }
                @{ Names = @('-h', '--help'); Offers = $null; Help = 'Show the help' }
            )
        }
    }

    function Find-Flag($command, $name) {
        foreach ($flag in $command.Flags) {
            if ($flag.Names -ccontains $name) { return $flag }
        }
    }

    # What the flag $word, or the last of several short ones in one word, offers for the word behind it.
    function Get-Awaited($command, $word) {
        if ($word.StartsWith('--')) { return (Find-Flag $command $word).Offers }
        for ($i = 1; $i -lt $word.Length; $i++) {
            $offers = (Find-Flag $command "-$($word[$i])").Offers
            if ($null -ne $offers) {
                if ($i -eq $word.Length - 1) { return $offers }
                return $null
            }
        }
        return $null
    }

    function Format-Word($word) {
        if ($word -cmatch '^[A-Za-z0-9_./:\\~+=-]+$') { return $word }
        return "'" + ($word -replace '[''\u2018-\u201B]', '$0$0') + "'"
    }

    function New-Result($text, $shown, $kind, $help) {
        if (-not $help) { $help = $shown }
        [System.Management.Automation.CompletionResult]::new($text, $shown, $kind, $help)
    }

    # The lines of llmctl's file of $kind: models or sessions.
    function Get-Names($kind) {
        $folder = $env:LLMCTL_CACHE_HOME
        if (-not $folder) {
            $cache = $env:XDG_CACHE_HOME
            if (-not $cache -or -not [System.IO.Path]::IsPathRooted($cache)) { $cache = Join-Path $HOME '.cache' }
            $folder = Join-Path $cache 'llmctl'
        }
        $lines = Get-Content -LiteralPath (Join-Path $folder "$kind.txt") -Encoding UTF8 -ErrorAction SilentlyContinue
        foreach ($line in $lines) {
            if ($line -and -not $line.StartsWith('-') -and $line -notmatch '[\x00-\x1f\x7f]') { $line }
        }
    }

    # Results for all of $offers that go on from $word; $before is what stands before it, as in --flag=word.
    function Get-Results($offers, $before, $word) {
        foreach ($offer in ($offers -split ' ')) {
            if ($offer -ceq '@files' -or $offer -ceq '@folders') {
                foreach ($found in [System.Management.Automation.CompletionCompleters]::CompleteFilename($word)) {
                    if ($offer -ceq '@files' -or $found.ResultType -eq 'ProviderContainer') {
                        New-Result ($before + $found.CompletionText) $found.ListItemText $found.ResultType $found.ToolTip
                    }
                }
                continue
            }
            $names = @($offer)
            if ($offer -ceq '@models' -or $offer -ceq '@sessions') { $names = @(Get-Names $offer.Substring(1)) }
            foreach ($name in $names) {
                if ($name -and $name.StartsWith($word, [System.StringComparison]::OrdinalIgnoreCase)) {
                    New-Result ($before + (Format-Word $name)) $name 'ParameterValue' ''
                }
            }
        }
    }

    function Get-Flags($command, $word) {
        foreach ($flag in $command.Flags) {
            foreach ($name in $flag.Names) {
                if ($name.StartsWith($word, [System.StringComparison]::Ordinal)) {
                    New-Result $name $name 'ParameterName' $flag.Help
                }
            }
        }
    }

    function Complete-Word {
        $path = 'llmctl'
        $command = $table[$path]
        $count = 0
        $closed = $false
        $awaited = $null
        foreach ($element in ($commandAst.CommandElements | Select-Object -Skip 1)) {
            if ($element.Extent.EndOffset -ge $cursorPosition) { break }
            $text = $element.Extent.Text
            if ($null -ne $awaited) {
                $awaited = $null
            } elseif (-not $closed -and $text.Length -gt 1 -and $text.StartsWith('-')) {
                if ($text -ceq '--') { $closed = $true } else { $awaited = Get-Awaited $command $text }
            } elseif ($command.Commands.Count -eq 0) {
                $count++
            } elseif ($command.Commands.Name -ccontains $text) {
                $path = "$path $text"
                $command = $table[$path]
                $closed = $false
            } else {
                return
            }
        }
        $word = $wordToComplete -replace '^[''"]|[''"]$', ''
        if ($null -ne $awaited) { return Get-Results $awaited '' $word }
        if (-not $closed -and $word -match '^(--[^=]*)=(.*)$') {
            $flag, $value = $Matches[1], $Matches[2]
            return Get-Results (Find-Flag $command $flag).Offers "$flag=" ($value -replace '^[''"]', '')
        }
        if (-not $closed -and $word.StartsWith('-')) { return Get-Flags $command $word }
        foreach ($below in $command.Commands) {
            if ($below.Name.StartsWith($word, [System.StringComparison]::Ordinal)) {
                New-Result $below.Name $below.Name 'ParameterValue' $below.Help
            }
        }
        $places = $command.Arguments
        if ($command.IsLastRepeatable -and $count -ge $places.Count) { $count = $places.Count - 1 }
        if ($count -lt $places.Count) { return Get-Results $places[$count] '' $word }
        # Where nothing else can follow, an empty word shows the flags.
        if ($command.Commands.Count -eq 0 -and -not $closed -and $word -eq '') { Get-Flags $command $word }
    }

    $results = @(Complete-Word)
    # Without a result PowerShell would offer files.
    if ($results.Count -gt 0) { $results } else { '' }
}
