# fish completion of llmctl, written by `llmctl completions fish`. Nothing is run when TAB is pressed: names of
# models and sessions are read from small files that llmctl keeps.

# Whether the command typed so far is $argv[1] (llmctl/config/show) and, where $argv[2] is given, that argument of
# it comes next: 0 is the first, `1+` the second and all later ones.
function __llmctl_at
    set -l path llmctl
    set -l num_given 0
    set -l is_value no
    set -l is_closed no
    set -l words (commandline -opc)
    set -e words[1]
    for word in $words
        if test $is_value = yes
            set is_value no
        else if test $is_closed = no; and string match -q -- '-?*' $word
            if test $word = --
                set is_closed yes
            else
                __llmctl_takes_value $path $word; and set is_value yes
            end
        else if not __llmctl_is_group $path
            set num_given (math $num_given + 1)
        else if __llmctl_is_command $path/$word
            set path $path/$word
            set is_closed no
        else
            return 1
        end
    end
    test $path = $argv[1]; or return 1
    switch "$argv[2]"
        case '' $num_given
            return 0
        case '*+'
            test $num_given -ge (string replace + '' -- $argv[2])
        case '*'
            return 1
    end
end

function __llmctl_is_command
    switch "$argv"
        case 'llmctl' \
            'llmctl/chat' \
            'llmctl/models' \
            'llmctl/models/list' \
            'llmctl/models/match' \
            'llmctl/models/show' \
            'llmctl/models/pull' \
            'llmctl/models/convert' \
            'llmctl/models/push' \
            'llmctl/models/rm' \
            'llmctl/compress' \
            'llmctl/delta' \
            'llmctl/delta/make' \
            'llmctl/delta/apply' \
            'llmctl/delta/show' \
            'llmctl/delta/verify' \
            'llmctl/lora' \
            'llmctl/lora/merge' \
            'llmctl/lora/extract' \
            'llmctl/logs' \
            'llmctl/logs/list' \
            'llmctl/logs/show' \
            'llmctl/logs/search' \
            'llmctl/logs/export' \
            'llmctl/logs/delete' \
            'llmctl/config' \
            'llmctl/config/show' \
            'llmctl/bench' \
            'llmctl/bench/layers' \
            'llmctl/bench/engine' \
            'llmctl/bench/serve' \
            'llmctl/serve' \
            'llmctl/serve/up' \
            'llmctl/serve/ps' \
            'llmctl/serve/stop' \
            'llmctl/serve/worker' \
            'llmctl/serve/controller' \
            'llmctl/serve/api' \
            'llmctl/serve/status' \
            'llmctl/doctor' \
            'llmctl/completions'
            return 0
    end
    return 1
end

function __llmctl_is_group
    switch "$argv"
        case 'llmctl' \
            'llmctl/models' \
            'llmctl/delta' \
            'llmctl/lora' \
            'llmctl/logs' \
            'llmctl/config' \
            'llmctl/bench' \
            'llmctl/serve'
            return 0
    end
    return 1
end

# Whether the word behind $argv[2], flags of the command $argv[1], is their value.
function __llmctl_takes_value
    set -l names $argv[2]
    if not string match -q -- '--*' $names
        set names -(string split '' -- (string sub -s 2 -- $names))
    end
    while set -q names[1]
        switch "$argv[1] $names[1]"
            case 'llmctl --color' \
            'llmctl/chat -p' \
            'llmctl/chat --prompt' \
            'llmctl/chat -f' \
            'llmctl/chat --file' \
            'llmctl/chat -s' \
            'llmctl/chat --system' \
            'llmctl/chat --messages' \
            'llmctl/chat --template' \
            'llmctl/chat --adapter-file' \
            'llmctl/chat --style' \
            'llmctl/chat --session' \
            'llmctl/chat --url' \
            'llmctl/chat --api-key-file' \
            'llmctl/chat --timeout' \
            'llmctl/chat --temperature' \
            'llmctl/chat --top-p' \
            'llmctl/chat --top-k' \
            'llmctl/chat --min-p' \
            'llmctl/chat --repetition-penalty' \
            'llmctl/chat --presence-penalty' \
            'llmctl/chat --frequency-penalty' \
            'llmctl/chat --seed' \
            'llmctl/chat --max-new-tokens' \
            'llmctl/chat --stop' \
            'llmctl/chat --stop-token-id' \
            'llmctl/chat --logprobs' \
            'llmctl/chat --device' \
            'llmctl/chat --dtype' \
            'llmctl/chat --quantization' \
            'llmctl/chat --num-gpus' \
            'llmctl/chat --gpus' \
            'llmctl/chat --max-gpu-memory' \
            'llmctl/chat --quant-config' \
            'llmctl/chat --context' \
            'llmctl/chat --revision' \
            'llmctl/chat --delta' \
            'llmctl/chat --color' \
            'llmctl/models --color' \
            'llmctl/models/list --family' \
            'llmctl/models/list --kind' \
            'llmctl/models/list --search' \
            'llmctl/models/list --adapter-file' \
            'llmctl/models/list --color' \
            'llmctl/models/match --render' \
            'llmctl/models/match --template' \
            'llmctl/models/match --adapter-file' \
            'llmctl/models/match --color' \
            'llmctl/models/show --memory' \
            'llmctl/models/show --context' \
            'llmctl/models/show --device' \
            'llmctl/models/show --dtype' \
            'llmctl/models/show --quantization' \
            'llmctl/models/show --quant' \
            'llmctl/models/show --num-gpus' \
            'llmctl/models/show --gpus' \
            'llmctl/models/show --max-gpu-memory' \
            'llmctl/models/show --quant-config' \
            'llmctl/models/show --revision' \
            'llmctl/models/show --adapter-file' \
            'llmctl/models/show --color' \
            'llmctl/models/pull --revision' \
            'llmctl/models/pull --color' \
            'llmctl/models/convert --out' \
            'llmctl/models/convert --dtype' \
            'llmctl/models/convert --max-shard-size' \
            'llmctl/models/convert --revision' \
            'llmctl/models/convert --color' \
            'llmctl/models/push --revision' \
            'llmctl/models/push --message' \
            'llmctl/models/push --color' \
            'llmctl/models/rm --revision' \
            'llmctl/models/rm --color' \
            'llmctl/compress --method' \
            'llmctl/compress --out' \
            'llmctl/compress --group-size' \
            'llmctl/compress --skip' \
            'llmctl/compress --calibration' \
            'llmctl/compress --eval' \
            'llmctl/compress --max-shard-size' \
            'llmctl/compress --revision' \
            'llmctl/compress --color' \
            'llmctl/delta --color' \
            'llmctl/delta/make --base' \
            'llmctl/delta/make --target' \
            'llmctl/delta/make --out' \
            'llmctl/delta/make --format' \
            'llmctl/delta/make --exclude' \
            'llmctl/delta/make --hub-repo-id' \
            'llmctl/delta/make --max-shard-size' \
            'llmctl/delta/make --base-revision' \
            'llmctl/delta/make --revision' \
            'llmctl/delta/make --color' \
            'llmctl/delta/apply --base' \
            'llmctl/delta/apply --delta' \
            'llmctl/delta/apply --out' \
            'llmctl/delta/apply --max-shard-size' \
            'llmctl/delta/apply --base-revision' \
            'llmctl/delta/apply --revision' \
            'llmctl/delta/apply --color' \
            'llmctl/delta/show --revision' \
            'llmctl/delta/show --color' \
            'llmctl/delta/verify --base' \
            'llmctl/delta/verify --target' \
            'llmctl/delta/verify --base-revision' \
            'llmctl/delta/verify --revision' \
            'llmctl/delta/verify --color' \
            'llmctl/lora --color' \
            'llmctl/lora/merge --adapter' \
            'llmctl/lora/merge --out' \
            'llmctl/lora/merge --base' \
            'llmctl/lora/merge --max-shard-size' \
            'llmctl/lora/merge --revision' \
            'llmctl/lora/merge --color' \
            'llmctl/lora/extract --base' \
            'llmctl/lora/extract --target' \
            'llmctl/lora/extract --out' \
            'llmctl/lora/extract --rank' \
            'llmctl/lora/extract --revision' \
            'llmctl/lora/extract --color' \
            'llmctl/logs --color' \
            'llmctl/logs/list -n' \
            'llmctl/logs/list --limit' \
            'llmctl/logs/list --color' \
            'llmctl/logs/show --color' \
            'llmctl/logs/search -n' \
            'llmctl/logs/search --limit' \
            'llmctl/logs/search --color' \
            'llmctl/logs/export --format' \
            'llmctl/logs/export -o' \
            'llmctl/logs/export --output' \
            'llmctl/logs/export --color' \
            'llmctl/logs/delete --before' \
            'llmctl/logs/delete --color' \
            'llmctl/config --color' \
            'llmctl/config/show --color' \
            'llmctl/bench --color' \
            'llmctl/bench/layers --shape' \
            'llmctl/bench/layers --rows' \
            'llmctl/bench/layers --method' \
            'llmctl/bench/layers --device' \
            'llmctl/bench/layers --seconds' \
            'llmctl/bench/layers --color' \
            'llmctl/bench/engine --shape' \
            'llmctl/bench/engine --tokenizer' \
            'llmctl/bench/engine --dtype' \
            'llmctl/bench/engine --batch' \
            'llmctl/bench/engine --prefill' \
            'llmctl/bench/engine --mix' \
            'llmctl/bench/engine --long' \
            'llmctl/bench/engine --against' \
            'llmctl/bench/engine --device' \
            'llmctl/bench/engine --seconds' \
            'llmctl/bench/engine --color' \
            'llmctl/bench/serve --url' \
            'llmctl/bench/serve --model' \
            'llmctl/bench/serve --api-key-file' \
            'llmctl/bench/serve --timeout' \
            'llmctl/bench/serve --against' \
            'llmctl/bench/serve --against-model' \
            'llmctl/bench/serve --against-api-key-file' \
            'llmctl/bench/serve --concurrency' \
            'llmctl/bench/serve --rate' \
            'llmctl/bench/serve --requests' \
            'llmctl/bench/serve --mix' \
            'llmctl/bench/serve --prompts' \
            'llmctl/bench/serve --max-tokens' \
            'llmctl/bench/serve --endpoint' \
            'llmctl/bench/serve --seed' \
            'llmctl/bench/serve --color' \
            'llmctl/serve --color' \
            'llmctl/serve/up --workers' \
            'llmctl/serve/up --host' \
            'llmctl/serve/up --port' \
            'llmctl/serve/up --controller-port' \
            'llmctl/serve/up --api-key-file' \
            'llmctl/serve/up --allowed-origin' \
            'llmctl/serve/up --timeout' \
            'llmctl/serve/up --dispatch-method' \
            'llmctl/serve/up --drain' \
            'llmctl/serve/up --template' \
            'llmctl/serve/up --task' \
            'llmctl/serve/up --delta' \
            'llmctl/serve/up --adapter-file' \
            'llmctl/serve/up --max-running' \
            'llmctl/serve/up --max-waiting' \
            'llmctl/serve/up --max-step-tokens' \
            'llmctl/serve/up --kv-memory' \
            'llmctl/serve/up --seed' \
            'llmctl/serve/up --device' \
            'llmctl/serve/up --dtype' \
            'llmctl/serve/up --quantization' \
            'llmctl/serve/up --num-gpus' \
            'llmctl/serve/up --gpus' \
            'llmctl/serve/up --max-gpu-memory' \
            'llmctl/serve/up --quant-config' \
            'llmctl/serve/up --context' \
            'llmctl/serve/up --revision' \
            'llmctl/serve/up --color' \
            'llmctl/serve/ps --color' \
            'llmctl/serve/stop --color' \
            'llmctl/serve/worker --model' \
            'llmctl/serve/worker --template' \
            'llmctl/serve/worker --task' \
            'llmctl/serve/worker --delta' \
            'llmctl/serve/worker --adapter-file' \
            'llmctl/serve/worker --host' \
            'llmctl/serve/worker --port' \
            'llmctl/serve/worker --api-key-file' \
            'llmctl/serve/worker --drain' \
            'llmctl/serve/worker --controller' \
            'llmctl/serve/worker --token-file' \
            'llmctl/serve/worker --worker-address' \
            'llmctl/serve/worker --max-running' \
            'llmctl/serve/worker --max-waiting' \
            'llmctl/serve/worker --max-step-tokens' \
            'llmctl/serve/worker --kv-memory' \
            'llmctl/serve/worker --seed' \
            'llmctl/serve/worker --device' \
            'llmctl/serve/worker --dtype' \
            'llmctl/serve/worker --quantization' \
            'llmctl/serve/worker --num-gpus' \
            'llmctl/serve/worker --gpus' \
            'llmctl/serve/worker --max-gpu-memory' \
            'llmctl/serve/worker --quant-config' \
            'llmctl/serve/worker --context' \
            'llmctl/serve/worker --revision' \
            'llmctl/serve/worker --color' \
            'llmctl/serve/controller --host' \
            'llmctl/serve/controller --port' \
            'llmctl/serve/controller --token-file' \
            'llmctl/serve/controller --dispatch-method' \
            'llmctl/serve/controller --interval' \
            'llmctl/serve/controller --color' \
            'llmctl/serve/api --controller' \
            'llmctl/serve/api --host' \
            'llmctl/serve/api --port' \
            'llmctl/serve/api --api-key-file' \
            'llmctl/serve/api --token-file' \
            'llmctl/serve/api --allowed-origin' \
            'llmctl/serve/api --timeout' \
            'llmctl/serve/api --drain' \
            'llmctl/serve/api --dispatch-method' \
            'llmctl/serve/api --color' \
            'llmctl/serve/status --controller' \
            'llmctl/serve/status --token-file' \
            'llmctl/serve/status --color' \
            'llmctl/doctor --color' \
            'llmctl/completions --color'
                # In the middle of short flags in one word the value is the rest of it.
                test (count $names) -eq 1
                return
        end
        set -e names[1]
    end
    return 1
end

# Prints what there is of @models, @sessions, @files and @folders, and any other word as it is.
function __llmctl_offer
    set -l typed (commandline -ct)
    set typed (string replace -r -- '^--[^=]*=' '' "$typed")
    for offer in $argv
        switch $offer
            case @models @sessions
                __llmctl_names (string sub -s 2 -- $offer)
            case @files
                __llmctl_is_path $typed; and __fish_complete_path $typed
            case @folders
                __llmctl_is_path $typed; and __fish_complete_directories $typed ''
            case '*'
                printf '%s\n' $offer
        end
    end
end

# Behind a : or = fish would offer paths anew, which turns qwen: into qwen:README.md.
function __llmctl_is_path
    not string match -qr -- '[:=]' "$argv"
end

# Prints the lines of llmctl's file of $argv[1]: models or sessions.
function __llmctl_names
    set -l folder $LLMCTL_CACHE_HOME
    if test -z "$folder"
        if string match -q -- '/*' "$XDG_CACHE_HOME"
            set folder $XDG_CACHE_HOME/llmctl
        else
            set folder $HOME/.cache/llmctl
        end
    end
    if string match -q -- '~/*' $folder
        set folder $HOME/(string sub -s 3 -- $folder)
    end
    set -l file $folder/$argv[1].txt
    if test -f $file -a -r $file
        string match -rv -- '^$|^-|[[:cntrl:]]' <$file
    end
end

complete -c llmctl -f

# llmctl
complete -c llmctl -n '__llmctl_at llmctl 0' -a chat -d 'Chat with a model, or answer one prompt'
complete -c llmctl -n '__llmctl_at llmctl 0' -a models -d 'List, match, show, download, convert and upload models'
complete -c llmctl -n '__llmctl_at llmctl 0' -a compress -d 'Store a model\'s weights in 8 or 4 bits'
complete -c llmctl -n '__llmctl_at llmctl 0' -a delta -d 'Make and apply deltas: what makes one model of another'
complete -c llmctl -n '__llmctl_at llmctl 0' -a lora -d 'Merge LoRA adapters, or make one of two models'
complete -c llmctl -n '__llmctl_at llmctl 0' -a logs -d 'Look at past conversations, export or delete them'
complete -c llmctl -n '__llmctl_at llmctl 0' -a config -d 'Look at the settings'
complete -c llmctl -n '__llmctl_at llmctl 0' -a bench -d 'Measure speed on this machine'
complete -c llmctl -n '__llmctl_at llmctl 0' -a serve -d 'Serve models to OpenAI clients: a worker alone, or a fleet'
complete -c llmctl -n '__llmctl_at llmctl 0' -a doctor -d 'Say what llmctl finds on this machine'
complete -c llmctl -n '__llmctl_at llmctl 0' -a completions -d 'Print the completion script of a shell'
complete -c llmctl -n '__llmctl_at llmctl' -l version -s V -d 'Print the version'
complete -c llmctl -n '__llmctl_at llmctl' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl' -s h -l help -d 'Show the help'

# llmctl chat
complete -c llmctl -n '__llmctl_at llmctl/chat 0' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s p -l prompt -x -d 'Answer this and leave'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s f -l file -rF -d 'Text before the prompt; - is stdin'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s s -l system -x -d 'System message'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l messages -rF -d 'JSON list of messages to answer; - is stdin'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l raw -d 'Go on with the text as it is, no template'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l template -rF -d 'Chat template instead of the model\'s: a Jinja file, or a name'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l adapter-file -rF -d 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s x -l extract -d 'Only the answer\'s last code block'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l json -d 'Answer, counts and times as JSON; errors too'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l style -x -a 'rich simple programmatic' -d 'rich: markdown; simple: bare text; programmatic: JSON lines in and out'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l plain -d 'No markdown, colour or line editing of our own'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l hide-reasoning -d 'Leave out what the model says to itself first'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l thinking -l no-thinking -d 'Have the model reason first, or not; left out, as its template has it'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s c -l continue -d 'Go on with the last conversation'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l session -x -a '(__llmctl_offer @sessions)' -d 'Go on with the conversation of this name, or begin it'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l no-log -d 'Keep nothing of what is said'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l no-history -d 'Neither offer nor keep typed lines'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l url -x -d 'Talk to this OpenAI-compatible server instead of loading a model'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l api-key-file -rF -d 'File with its key; else LLMCTL_API_KEY or OPENAI_API_KEY'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l timeout -x -d 'Silence after which it is given up; 60 if not set'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l temperature -x -d '0 is greedy; left out, the model\'s own'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l top-p -x -d 'Only the likeliest tokens that together reach this probability'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l top-k -x -d 'Only the k likeliest tokens; 0 is all'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l min-p -x -d 'Only tokens of at least this share of the likeliest'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l repetition-penalty -x -d 'Above 1 discourages what prompt and answer hold'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l presence-penalty -x -d 'Lowers tokens that the answer already holds'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l frequency-penalty -x -d 'The same, for each time that they occur'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l seed -x -d 'The same seed gives the same answer'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l max-new-tokens -x -d 'Longest answer in tokens; left out, what the context holds'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l stop -x -d 'End before this text; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l stop-token-id -x -d 'End at this token; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l logprobs -x -d 'Log-probabilities, of so many likeliest too (--json)'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l device -x -a 'auto cuda xpu npu mps cpu' -d 'Where the model runs; auto is the best there is'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l dtype -x -a 'auto float32 bfloat16 float16' -d 'Numbers that it computes in'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l load-8bit -d 'Pack the weights into 8 bits while they load'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l load-4bit -d 'Pack them into 4 bits, the way that is fastest here'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l quantization -x -a 'int8 int4 nf4 fp4 none' -d 'Pack them so, or the format that the checkpoint must have (gptq, awq, ...); none: as it is stored'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l num-gpus -x -d 'Spread the model over so many GPUs; 1 if not set'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l gpus -x -d 'Use these GPUs: 0,2'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l max-gpu-memory -x -d 'Most weights on each GPU: 20GiB'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l cpu-offloading -d 'Keep packed weights that no GPU has room for on the CPU'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l quant-config -x -d 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l context -x -d 'Limit on prompt and answer together; left out, the model\'s'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l trust-remote-code -d 'Run Python code of the model\'s repository'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l delta -x -d 'Apply this delta to MODEL while it loads, llmctl\'s or FastChat\'s: a folder, or a hub id'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/chat' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/chat' -s h -l help -d 'Show the help'

# llmctl models
complete -c llmctl -n '__llmctl_at llmctl/models 0' -a list -d 'List model families, or the models on this machine'
complete -c llmctl -n '__llmctl_at llmctl/models 0' -a match -d 'Say how a model is prompted, stopped and loaded, and why'
complete -c llmctl -n '__llmctl_at llmctl/models 0' -a show -d 'Show what a checkpoint is and whether it fits'
complete -c llmctl -n '__llmctl_at llmctl/models 0' -a pull -d 'Download models, or what is missing of them'
complete -c llmctl -n '__llmctl_at llmctl/models 0' -a convert -d 'Write a model\'s weights in other numbers, in shards of another size, or as safetensors'
complete -c llmctl -n '__llmctl_at llmctl/models 0' -a push -d 'Upload a folder to the hub: a model, a delta or an adapter'
complete -c llmctl -n '__llmctl_at llmctl/models 0' -a rm -d 'Remove a downloaded model from the cache'
complete -c llmctl -n '__llmctl_at llmctl/models' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models' -s h -l help -d 'Show the help'

# llmctl models list
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l family -x -d 'Only this family'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l kind -x -a 'decoder encoder-decoder embedding reranker vision-language api' -d 'Only families of this kind'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l search -x -d 'Only what holds all these words, in any column'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l local -d 'Models on this machine: embedded or downloaded'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l adapter-file -rF -d 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models/list' -s h -l help -d 'Show the help'

# llmctl models match
complete -c llmctl -n '__llmctl_at llmctl/models/match 0+' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -l explain -d 'All families that fit, and why'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -l render -rF -d 'Print the prompt of this JSON conversation; without a file, of a short one'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -l template -rF -d 'A Jinja file or a template\'s name, before all'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -l adapter-file -rF -d 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models/match' -s h -l help -d 'Show the help'

# llmctl models show
complete -c llmctl -n '__llmctl_at llmctl/models/show 0' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l memory -x -d 'Judge by this much memory: 16GiB, 24GB'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l context -x -d 'Tokens of prompt and answer; 4096 or the model\'s'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l device -x -a 'auto cuda xpu npu mps cpu' -d 'Judge by this device; with --memory one that is not here'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l dtype -x -a 'auto float32 bfloat16 float16' -d 'Numbers that it computes in'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l load-8bit -d 'Pack the weights into 8 bits while they load'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l load-4bit -d 'Pack them into 4 bits, the way that is fastest here'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l quantization -l quant -x -a 'int8 int4 nf4 fp4 none' -d 'Judge as if packed so while it loads; none: as it is stored'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l num-gpus -x -d 'Spread the model over so many GPUs; 1 if not set'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l gpus -x -d 'Use these GPUs: 0,2'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l max-gpu-memory -x -d 'Most weights on each GPU: 20GiB'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l cpu-offloading -d 'Keep packed weights that no GPU has room for on the CPU'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l quant-config -x -d 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l trust-remote-code -d 'Run Python code of the model\'s repository'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l plan -d 'Show how it would be loaded, and why, instead'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l engine -d 'Show how the engine would run it, and why, instead'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l adapter-file -rF -d 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models/show' -s h -l help -d 'Show the help'

# llmctl models pull
complete -c llmctl -n '__llmctl_at llmctl/models/pull 0+' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/models/pull' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/models/pull' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/pull' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models/pull' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/pull' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models/pull' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models/pull' -s h -l help -d 'Show the help'

# llmctl models convert
complete -c llmctl -n '__llmctl_at llmctl/models/convert 0' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l out -x -a '(__llmctl_offer @folders)' -d 'The folder to write'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l dtype -x -a 'float32 bfloat16 float16' -d 'Numbers of the result; left out, every bit stays'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l max-shard-size -x -d 'Most weights in one file'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l overwrite -d 'Replace the folder, once the new one is whole'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l dry-run -d 'Only say what would be done'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models/convert' -s h -l help -d 'Show the help'

# llmctl models push
complete -c llmctl -n '__llmctl_at llmctl/models/push 0' -a '(__llmctl_offer @folders)'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -l private -d 'Make the repository for your eyes only'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -l revision -x -d 'Upload to this branch; main if not set'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -l message -x -d 'What the commit says'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -l dry-run -d 'Only say what would be done'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models/push' -s h -l help -d 'Show the help'

# llmctl models rm
complete -c llmctl -n '__llmctl_at llmctl/models/rm 0' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -l revision -x -d 'Remove only this branch, tag or commit'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -l yes -s y -d 'Do not ask'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/models/rm' -s h -l help -d 'Show the help'

# llmctl compress
complete -c llmctl -n '__llmctl_at llmctl/compress 0' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l method -x -a 'int8 int4 fp8 nf4 gptq awq' -d 'How the weights are stored; gptq and awq need the package gptqmodel'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l out -x -a '(__llmctl_offer @folders)' -d 'The folder to write'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l group-size -x -d 'Weights that share a scale: 32, 64 or 128; left out, the one that divides most rows'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l skip -x -d 'Leave layers alone whose name this regular expression finds; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l calibration -rF -d 'Text like what the model will meet: int4 rounds by it, which takes a while'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l eval -rF -d 'Text to judge by; left out, llmctl\'s own'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l no-eval -d 'Do not judge'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l max-shard-size -x -d 'Most weights in one file'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l overwrite -d 'Replace the folder, once the new one is whole'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l dry-run -d 'Only say what would be done'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/compress' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/compress' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/compress' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/compress' -s h -l help -d 'Show the help'

# llmctl delta
complete -c llmctl -n '__llmctl_at llmctl/delta 0' -a make -d 'Write what turns one model into another'
complete -c llmctl -n '__llmctl_at llmctl/delta 0' -a apply -d 'Write the model that a delta makes of its base'
complete -c llmctl -n '__llmctl_at llmctl/delta 0' -a show -d 'Show what a delta is: its base and target, what differs, how large it is'
complete -c llmctl -n '__llmctl_at llmctl/delta 0' -a verify -d 'Read all of a delta, and of its base and target where given, and say what is not as it was'
complete -c llmctl -n '__llmctl_at llmctl/delta' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/delta' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/delta' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/delta' -s h -l help -d 'Show the help'

# llmctl delta make
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l base -x -a '(__llmctl_offer @models @folders)' -d 'The model that it starts from'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l target -x -a '(__llmctl_offer @models @folders)' -d 'The model that it leads to'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l out -x -a '(__llmctl_offer @folders)' -d 'The folder to write'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l format -x -a 'exact add' -d 'exact: the target comes back bit for bit; add: float16 differences, as FastChat has them'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l exclude -x -d 'Leave tensors as the base has them whose name this regular expression finds; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l hub-repo-id -x -d 'Upload it to the hub too: owner/name'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l private -d 'Make the repository for your eyes only'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l max-shard-size -x -d 'Most weights in one file'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l overwrite -d 'Replace the folder, once the new one is whole'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l dry-run -d 'Only say what would be done'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l base-revision -x -d 'Branch, tag or commit of the base on the hub'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l revision -x -d 'Branch, tag or commit of the target on the hub'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/delta/make' -s h -l help -d 'Show the help'

# llmctl delta apply
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l base -x -a '(__llmctl_offer @models @folders)' -d 'The model that it starts from'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l delta -x -d 'A folder that `llmctl delta make` wrote, or a hub id'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l out -x -a '(__llmctl_offer @folders)' -d 'The folder to write'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l max-shard-size -x -d 'Most weights in one file; left out, the files are as they were'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l overwrite -d 'Replace the folder, once the new one is whole'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l dry-run -d 'Only say what would be done'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l base-revision -x -d 'Branch, tag or commit of the base on the hub'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/delta/apply' -s h -l help -d 'Show the help'

# llmctl delta show
complete -c llmctl -n '__llmctl_at llmctl/delta/show' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/delta/show' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/show' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/delta/show' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/show' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/delta/show' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/delta/show' -s h -l help -d 'Show the help'

# llmctl delta verify
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -l base -x -a '(__llmctl_offer @models @folders)' -d 'Is this the base that it was made from?'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -l target -x -a '(__llmctl_offer @models @folders)' -d 'Is this the target, bit for bit?'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -l base-revision -x -d 'Branch, tag or commit of the base on the hub'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/delta/verify' -s h -l help -d 'Show the help'

# llmctl lora
complete -c llmctl -n '__llmctl_at llmctl/lora 0' -a merge -d 'Merge a LoRA adapter into its base: a checkpoint that needs no adapter any more'
complete -c llmctl -n '__llmctl_at llmctl/lora 0' -a extract -d 'Make a LoRA adapter of the difference of two models, as peft and vLLM read it'
complete -c llmctl -n '__llmctl_at llmctl/lora' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/lora' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/lora' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/lora' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/lora' -s h -l help -d 'Show the help'

# llmctl lora merge
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l adapter -x -d 'The adapter: a folder that peft saved, or a hub id'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l out -x -a '(__llmctl_offer @folders)' -d 'The folder to write'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l base -x -a '(__llmctl_offer @models @folders)' -d 'Its base: a folder, `demo`, or a hub id; left out, the one that the adapter names'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l max-shard-size -x -d 'Most weights in one file'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l overwrite -d 'Replace the folder, once the new one is whole'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l dry-run -d 'Only say what would be done'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/lora/merge' -s h -l help -d 'Show the help'

# llmctl lora extract
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l base -x -a '(__llmctl_offer @models @folders)' -d 'What it was tuned from: a folder, `demo`, or a hub id'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l target -x -a '(__llmctl_offer @models @folders)' -d 'The tuned model: a folder, `demo`, or a hub id'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l out -x -a '(__llmctl_offer @folders)' -d 'The folder to write'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l rank -x -d 'Rank of the adapter\'s matrices'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l overwrite -d 'Replace the folder, once the new one is whole'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l dry-run -d 'Only say what would be done'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/lora/extract' -s h -l help -d 'Show the help'

# llmctl logs
complete -c llmctl -n '__llmctl_at llmctl/logs 0' -a list -d 'List conversations, the most recent first'
complete -c llmctl -n '__llmctl_at llmctl/logs 0' -a show -d 'Show a conversation as markdown'
complete -c llmctl -n '__llmctl_at llmctl/logs 0' -a search -d 'Search conversations for words, the newest message first'
complete -c llmctl -n '__llmctl_at llmctl/logs 0' -a export -d 'Write a conversation to stdout or to a file'
complete -c llmctl -n '__llmctl_at llmctl/logs 0' -a delete -d 'Delete conversations for good'
complete -c llmctl -n '__llmctl_at llmctl/logs' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/logs' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/logs' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/logs' -s h -l help -d 'Show the help'

# llmctl logs list
complete -c llmctl -n '__llmctl_at llmctl/logs/list' -s n -l limit -x -d 'At most so many; 0 is all'
complete -c llmctl -n '__llmctl_at llmctl/logs/list' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/list' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/logs/list' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/list' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/logs/list' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/logs/list' -s h -l help -d 'Show the help'

# llmctl logs show
complete -c llmctl -n '__llmctl_at llmctl/logs/show 0' -a '(__llmctl_offer @sessions)'
complete -c llmctl -n '__llmctl_at llmctl/logs/show' -l all -d 'Show what was undone, too'
complete -c llmctl -n '__llmctl_at llmctl/logs/show' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/show' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/logs/show' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/show' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/logs/show' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/logs/show' -s h -l help -d 'Show the help'

# llmctl logs search
complete -c llmctl -n '__llmctl_at llmctl/logs/search' -s n -l limit -x -d 'At most so many; 0 is all'
complete -c llmctl -n '__llmctl_at llmctl/logs/search' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/search' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/logs/search' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/search' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/logs/search' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/logs/search' -s h -l help -d 'Show the help'

# llmctl logs export
complete -c llmctl -n '__llmctl_at llmctl/logs/export 0' -a '(__llmctl_offer @sessions)'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -l format -x -a 'md json' -d 'json can be loaded again; left out, a FILE ending in .json gets it, else md'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -s o -l output -rF -d 'Left out, or -, stdout'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -l all -d 'With what was undone, too'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -l force -d 'Replace FILE if it exists'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/logs/export' -s h -l help -d 'Show the help'

# llmctl logs delete
complete -c llmctl -n '__llmctl_at llmctl/logs/delete 0+' -a '(__llmctl_offer @sessions)'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -l all -d 'Delete every conversation'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -l before -x -d 'Delete those not used since that day began'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -l yes -s y -d 'Do not ask'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/logs/delete' -s h -l help -d 'Show the help'

# llmctl config
complete -c llmctl -n '__llmctl_at llmctl/config 0' -a show -d 'Show every setting in force and where it comes from'
complete -c llmctl -n '__llmctl_at llmctl/config' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/config' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/config' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/config' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/config' -s h -l help -d 'Show the help'

# llmctl config show
complete -c llmctl -n '__llmctl_at llmctl/config/show' -l origin -d 'Say where each value comes from'
complete -c llmctl -n '__llmctl_at llmctl/config/show' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/config/show' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/config/show' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/config/show' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/config/show' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/config/show' -s h -l help -d 'Show the help'

# llmctl bench
complete -c llmctl -n '__llmctl_at llmctl/bench 0' -a layers -d 'Time quantised layers against dense ones, over one block of a model'
complete -c llmctl -n '__llmctl_at llmctl/bench 0' -a engine -d 'Time the engine: decode, prefill, many clients, memory'
complete -c llmctl -n '__llmctl_at llmctl/bench 0' -a serve -d 'Time a server under load: first token, inter-token, throughput'
complete -c llmctl -n '__llmctl_at llmctl/bench' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/bench' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/bench' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/bench' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/bench' -s h -l help -d 'Show the help'

# llmctl bench layers
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l shape -x -a 'demo qwen2-0.5b qwen3-0.6b qwen2.5-1.5b llama-1b gemma-2b mistral-7b llama-8b qwen2.5-7b llama-70b' -d 'The model whose block is measured'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l rows -x -d 'How many rows at a time: 1 is a token, 512 a prompt'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l method -x -d 'Quantised kernels: int8, int4, nf4, fp4'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l device -x -a 'auto cuda xpu npu mps cpu' -d 'Where the model runs; auto is the best there is'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l seconds -x -d 'Time for a block at one number of rows; more is steadier'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/bench/layers' -s h -l help -d 'Show the help'

# llmctl bench engine
complete -c llmctl -n '__llmctl_at llmctl/bench/engine 0' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l shape -x -a 'demo qwen2-0.5b qwen3-0.6b qwen2.5-1.5b llama-1b gemma-2b mistral-7b llama-8b qwen2.5-7b llama-70b' -d 'A random model of this shape, made in memory; qwen2-0.5b if nothing is named'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l tokenizer -x -a '(__llmctl_offer @folders)' -d 'A real tokenizer for --shape, so that text is made too'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l dtype -x -d 'What the weights are kept in: bf16, int8, int4, nf4, fp4'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l batch -x -a 'none' -d 'Sequences that decode together; clients of --mix are 16 if named here, else the most'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l prefill -x -a 'none' -d 'Lengths of single prompts; 16 of 115 come with them'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l mix -x -a 'none' -d 'Tokens of prompt and answer of clients that come back'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l long -x -a 'waiting context generation all none' -d '2,000 that wait, a context of 32,000 tokens, an answer of 10,000: minutes each'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l against -x -a 'transformers' -d 'Measure in turn with its `generate`: bfloat16, greedy, one sequence'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l device -x -a 'auto cuda xpu npu mps cpu' -d 'Where the model runs; auto is the best there is'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l trust-remote-code -d 'Run Python code of the model\'s repository'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l seconds -x -d 'Time for the turns of one row; more is steadier'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/bench/engine' -s h -l help -d 'Show the help'

# llmctl bench serve
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l url -x -d 'The server: OpenAI-compatible'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l model -x -d 'Its model; else its first'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l api-key-file -rF -d 'File with its key; else LLMCTL_API_KEY or OPENAI_API_KEY'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l timeout -x -d 'Silence after which it is given up; 60 if not set'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l against -x -d 'Then put the same load on this one, and tell the ratio'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l against-model -x -d 'What the model is called there; else as --model says'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l against-api-key-file -rF -d 'File with the key of that one; else the variables'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l concurrency -x -d 'Clients that come back when they have their answer; 16 if not set'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l rate -x -d 'Instead: so many requests a second, whether or not the server keeps up'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l requests -x -d 'How many; if not set 4 of a client, or 64'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l mix -x -d 'Tokens of random prompts and of answers; 115:48 if not set'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l prompts -rF -d 'Real prompts: one a line, or lines of JSON with "prompt" or "messages"'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l max-tokens -x -d 'Tokens of an answer to --prompts; 128 if not set'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l endpoint -x -a 'completions chat' -d 'Where to ask; else completions, and chat for --prompts'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l seed -x -d 'Of the moments of --rate'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/bench/serve' -s h -l help -d 'Show the help'

# llmctl serve
complete -c llmctl -n '__llmctl_at llmctl/serve 0' -a up -d 'Start a whole fleet on this machine, and watch over it'
complete -c llmctl -n '__llmctl_at llmctl/serve 0' -a ps -d 'List the fleets that run on this machine'
complete -c llmctl -n '__llmctl_at llmctl/serve 0' -a stop -d 'Stop a fleet of this machine'
complete -c llmctl -n '__llmctl_at llmctl/serve 0' -a worker -d 'Serve models to OpenAI clients, by itself or as a part of a fleet'
complete -c llmctl -n '__llmctl_at llmctl/serve 0' -a controller -d 'Keep the table of a fleet: who serves what, and how busy it is'
complete -c llmctl -n '__llmctl_at llmctl/serve 0' -a api -d 'Serve OpenAI clients from the workers of a fleet'
complete -c llmctl -n '__llmctl_at llmctl/serve 0' -a status -d 'Show the workers of a fleet, their models and their load'
complete -c llmctl -n '__llmctl_at llmctl/serve' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve' -s h -l help -d 'Show the help'

# llmctl serve up
complete -c llmctl -n '__llmctl_at llmctl/serve/up 0+' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l workers -x -d 'Processes for each model; 1: one for all models together'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l apart -d 'With one worker too, a process for each model'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l host -x -d 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l port -x -d '0 is one that is free'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l controller-port -x -d 'Of the controller; 0 is one that is free'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l api-key-file -rF -d 'Keys of clients, one a line, plain or sha256:HEX; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l allowed-origin -x -d 'Web pages from there may ask, \'*\' is all; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l timeout -x -d 'How long a worker may be silent in an answer; 600 if not set'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l dispatch-method -x -a 'least-wait lottery prefix' -d 'Which worker takes a request: the least expected wait, a draw by free places, or the one that has the prompt\'s beginning cached'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l drain -x -d 'How long open requests may go on at the end'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l detach -d 'Return when all is served; llmctl serve stop ends the fleet'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l template -rF -d 'Chat template instead of the model\'s; of several models MODEL=FILE|NAME'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l task -x -a 'auto generate embed classify' -d 'What a model is to do, auto: by its files; of several models MODEL=TASK'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l delta -x -d 'Apply it to the model while it loads, a folder or hub id; of several models MODEL=DELTA'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l adapter-file -rF -d 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l max-running -x -d 'Requests that run at once in a worker; left out, as suits the device'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l max-waiting -x -d 'Requests that may wait in a worker, 512 if not set; more are told 429'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l max-step-tokens -x -d 'Tokens that are computed together; left out, as suits the device'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l kv-memory -x -d 'Memory for keys and values of each model: 4GiB; left out, what is free'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l no-prefix-cache -d 'Compute what prompts have in common anew each time'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l seed -x -d 'The same seed gives the same answer'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l device -x -a 'auto cuda xpu npu mps cpu' -d 'Where the model runs; auto is the best there is'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l dtype -x -a 'auto float32 bfloat16 float16' -d 'Numbers that it computes in'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l load-8bit -d 'Pack the weights into 8 bits while they load'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l load-4bit -d 'Pack them into 4 bits, the way that is fastest here'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l quantization -x -a 'int8 int4 nf4 fp4 none' -d 'Pack them so, or the format that the checkpoint must have (gptq, awq, ...); none: as it is stored'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l num-gpus -x -d 'Spread the model over so many GPUs; 1 if not set'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l gpus -x -d 'Use these GPUs: 0,2'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l max-gpu-memory -x -d 'Most weights on each GPU: 20GiB'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l cpu-offloading -d 'Keep packed weights that no GPU has room for on the CPU'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l quant-config -x -d 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l context -x -d 'Limit on prompt and answer together; left out, the model\'s'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l trust-remote-code -d 'Run Python code of the model\'s repository'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve/up' -s h -l help -d 'Show the help'

# llmctl serve ps
complete -c llmctl -n '__llmctl_at llmctl/serve/ps' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/ps' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve/ps' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/ps' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve/ps' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve/ps' -s h -l help -d 'Show the help'

# llmctl serve stop
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -l all -d 'End all fleets of this machine'
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -l now -d 'Do not wait for open requests'
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve/stop' -s h -l help -d 'Show the help'

# llmctl serve worker
complete -c llmctl -n '__llmctl_at llmctl/serve/worker 0' -a '(__llmctl_offer @models @folders)'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l model -x -a '(__llmctl_offer @models @folders)' -d 'A further model; A,B=MODEL has two names'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l template -rF -d 'Chat template instead of the model\'s; of several models MODEL=FILE|NAME'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l task -x -a 'auto generate embed classify' -d 'What a model is to do, auto: by its files; of several models MODEL=TASK'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l delta -x -d 'Apply it to the model while it loads, a folder or hub id; of several models MODEL=DELTA'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l adapter-file -rF -d 'Families of your own: rows (.toml) or classes (.py, which is run); repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l host -x -d 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l port -x -d '0 is one that is free'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l api-key-file -rF -d 'Keys of clients, one a line, plain or sha256:HEX; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l drain -x -d 'How long open requests may go on at the end'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l controller -x -d 'Report to this controller; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l token-file -rF -d 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l worker-address -x -d 'Where gateways reach this worker; left out, where it listens'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l max-running -x -d 'Requests that run at once in a worker; left out, as suits the device'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l max-waiting -x -d 'Requests that may wait in a worker, 512 if not set; more are told 429'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l max-step-tokens -x -d 'Tokens that are computed together; left out, as suits the device'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l kv-memory -x -d 'Memory for keys and values of each model: 4GiB; left out, what is free'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l no-prefix-cache -d 'Compute what prompts have in common anew each time'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l seed -x -d 'The same seed gives the same answer'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l device -x -a 'auto cuda xpu npu mps cpu' -d 'Where the model runs; auto is the best there is'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l dtype -x -a 'auto float32 bfloat16 float16' -d 'Numbers that it computes in'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l load-8bit -d 'Pack the weights into 8 bits while they load'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l load-4bit -d 'Pack them into 4 bits, the way that is fastest here'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l quantization -x -a 'int8 int4 nf4 fp4 none' -d 'Pack them so, or the format that the checkpoint must have (gptq, awq, ...); none: as it is stored'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l num-gpus -x -d 'Spread the model over so many GPUs; 1 if not set'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l gpus -x -d 'Use these GPUs: 0,2'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l max-gpu-memory -x -d 'Most weights on each GPU: 20GiB'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l cpu-offloading -d 'Keep packed weights that no GPU has room for on the CPU'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l quant-config -x -d 'What a quantised checkpoint should have said of itself, such as bits=4; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l context -x -d 'Limit on prompt and answer together; left out, the model\'s'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l revision -x -d 'Branch, tag or commit on the hub'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l trust-remote-code -d 'Run Python code of the model\'s repository'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve/worker' -s h -l help -d 'Show the help'

# llmctl serve controller
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -l host -x -d 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -l port -x -d '0 is one that is free'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -l token-file -rF -d 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -l dispatch-method -x -a 'least-wait lottery prefix' -d 'Which worker takes a request: the least expected wait, a draw by free places, or the one that has the prompt\'s beginning cached'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -l interval -x -d 'Between two reports of a worker; three that are missed take it out'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve/controller' -s h -l help -d 'Show the help'

# llmctl serve api
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l controller -x -d 'Whom to ask for workers; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l host -x -d 'Where to listen; 0.0.0.0 is everywhere, and asks for a key or token'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l port -x -d '0 is one that is free'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l api-key-file -rF -d 'Keys of clients, one a line, plain or sha256:HEX; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l token-file -rF -d 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l open -d 'Ask clients on this machine for no key, though the fleet has a token'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l allowed-origin -x -d 'Web pages from there may ask, \'*\' is all; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l timeout -x -d 'How long a worker may be silent in an answer'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l drain -x -d 'How long open requests may go on at the end'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l dispatch-method -x -a 'least-wait lottery prefix' -d 'Which worker takes a request; left out, as the controller says'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve/api' -s h -l help -d 'Show the help'

# llmctl serve status
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -l controller -x -d 'Ask this one; repeatable'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -l token-file -rF -d 'File with the token of the fleet; else LLMCTL_CLUSTER_TOKEN_FILE names it'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -l watch -d 'Tell again every second, until Ctrl-C'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/serve/status' -s h -l help -d 'Show the help'

# llmctl doctor
complete -c llmctl -n '__llmctl_at llmctl/doctor' -l json -d 'Print JSON; errors too, as one object on stderr'
complete -c llmctl -n '__llmctl_at llmctl/doctor' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/doctor' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/doctor' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/doctor' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/doctor' -s h -l help -d 'Show the help'

# llmctl completions
complete -c llmctl -n '__llmctl_at llmctl/completions 0' -a 'bash zsh fish powershell'
complete -c llmctl -n '__llmctl_at llmctl/completions' -s v -l verbose -d 'Say what is chosen and why; twice for everything'
complete -c llmctl -n '__llmctl_at llmctl/completions' -s q -l quiet -d 'Errors only on stderr'
complete -c llmctl -n '__llmctl_at llmctl/completions' -l debug -d 'Show a traceback with an error'
complete -c llmctl -n '__llmctl_at llmctl/completions' -l color -x -a 'auto always never' -d 'Colour; auto looks at the terminal and NO_COLOR'
complete -c llmctl -n '__llmctl_at llmctl/completions' -s h -l help -d 'Show the help'
