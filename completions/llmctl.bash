# bash completion of llmctl, written by `llmctl completions bash`. Nothing is run when TAB is pressed: names of
# models and sessions are read from small files that llmctl keeps.

# What follows the command $1: its commands, its flags, and what each of its arguments may be.
_llmctl_command() {
    case $1 in
        'llmctl')
            commands='chat models compress delta lora logs config bench serve doctor completions'
            flags='--version -V -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl chat')
            commands=''
            flags='-p --prompt -f --file -s --system --messages --raw --template --adapter-file -x --extract --json --style --plain --hide-reasoning --thinking --no-thinking -c --continue --session --no-log --no-history --url --api-key-file --timeout --temperature --top-p --top-k --min-p --repetition-penalty --presence-penalty --frequency-penalty --seed --max-new-tokens --stop --stop-token-id --logprobs --device --dtype --load-8bit --load-4bit --quantization --num-gpus --gpus --max-gpu-memory --cpu-offloading --quant-config --context --revision --trust-remote-code --delta -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=
            ;;
        'llmctl models')
            commands='list match show pull convert push rm'
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl models list')
            commands=''
            flags='--family --kind --search --local --adapter-file --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl models match')
            commands=''
            flags='--explain --render --template --adapter-file --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=1
            ;;
        'llmctl models show')
            commands=''
            flags='--memory --context --device --dtype --load-8bit --load-4bit --quantization --quant --num-gpus --gpus --max-gpu-memory --cpu-offloading --quant-config --revision --trust-remote-code --plan --engine --adapter-file --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=
            ;;
        'llmctl models pull')
            commands=''
            flags='--revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=1
            ;;
        'llmctl models convert')
            commands=''
            flags='--out --dtype --max-shard-size --overwrite --dry-run --revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=
            ;;
        'llmctl models push')
            commands=''
            flags='--private --revision --message --dry-run --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@folders' '') many=
            ;;
        'llmctl models rm')
            commands=''
            flags='--revision --yes -y --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=
            ;;
        'llmctl compress')
            commands=''
            flags='--method --out --group-size --skip --calibration --eval --no-eval --max-shard-size --overwrite --dry-run --revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=
            ;;
        'llmctl delta')
            commands='make apply show verify'
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl delta make')
            commands=''
            flags='--base --target --out --format --exclude --hub-repo-id --private --max-shard-size --overwrite --dry-run --base-revision --revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl delta apply')
            commands=''
            flags='--base --delta --out --max-shard-size --overwrite --dry-run --base-revision --revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl delta show')
            commands=''
            flags='--revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=('') many=
            ;;
        'llmctl delta verify')
            commands=''
            flags='--base --target --base-revision --revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=('') many=
            ;;
        'llmctl lora')
            commands='merge extract'
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl lora merge')
            commands=''
            flags='--adapter --out --base --max-shard-size --overwrite --dry-run --revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl lora extract')
            commands=''
            flags='--base --target --out --rank --overwrite --dry-run --revision --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl logs')
            commands='list show search export delete'
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl logs list')
            commands=''
            flags='-n --limit --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl logs show')
            commands=''
            flags='--all --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@sessions') many=
            ;;
        'llmctl logs search')
            commands=''
            flags='-n --limit --json -v --verbose -q --quiet --debug --color -h --help'
            places=('') many=1
            ;;
        'llmctl logs export')
            commands=''
            flags='--format -o --output --all --force -v --verbose -q --quiet --debug --color -h --help'
            places=('@sessions') many=
            ;;
        'llmctl logs delete')
            commands=''
            flags='--all --before --yes -y --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@sessions') many=1
            ;;
        'llmctl config')
            commands='show'
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl config show')
            commands=''
            flags='--origin --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl bench')
            commands='layers engine serve'
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl bench layers')
            commands=''
            flags='--shape --rows --method --device --seconds --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl bench engine')
            commands=''
            flags='--shape --tokenizer --dtype --batch --prefill --mix --long --against --device --trust-remote-code --seconds --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=
            ;;
        'llmctl bench serve')
            commands=''
            flags='--url --model --api-key-file --timeout --against --against-model --against-api-key-file --concurrency --rate --requests --mix --prompts --max-tokens --endpoint --seed --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl serve')
            commands='up ps stop worker controller api status'
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl serve up')
            commands=''
            flags='--workers --apart --host --port --controller-port --api-key-file --allowed-origin --timeout --dispatch-method --drain --detach --template --task --delta --adapter-file --max-running --max-waiting --max-step-tokens --kv-memory --no-prefix-cache --seed --device --dtype --load-8bit --load-4bit --quantization --num-gpus --gpus --max-gpu-memory --cpu-offloading --quant-config --context --revision --trust-remote-code --json -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=1
            ;;
        'llmctl serve ps')
            commands=''
            flags='--json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl serve stop')
            commands=''
            flags='--all --now --json -v --verbose -q --quiet --debug --color -h --help'
            places=('') many=
            ;;
        'llmctl serve worker')
            commands=''
            flags='--model --template --task --delta --adapter-file --host --port --api-key-file --drain --controller --token-file --worker-address --max-running --max-waiting --max-step-tokens --kv-memory --no-prefix-cache --seed --device --dtype --load-8bit --load-4bit --quantization --num-gpus --gpus --max-gpu-memory --cpu-offloading --quant-config --context --revision --trust-remote-code -v --verbose -q --quiet --debug --color -h --help'
            places=('@models @folders') many=
            ;;
        'llmctl serve controller')
            commands=''
            flags='--host --port --token-file --dispatch-method --interval -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl serve api')
            commands=''
            flags='--controller --host --port --api-key-file --token-file --open --allowed-origin --timeout --drain --dispatch-method -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl serve status')
            commands=''
            flags='--controller --token-file --watch --json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl doctor')
            commands=''
            flags='--json -v --verbose -q --quiet --debug --color -h --help'
            places=() many=
            ;;
        'llmctl completions')
            commands=''
            flags='-v --verbose -q --quiet --debug --color -h --help'
            places=('bash zsh fish powershell') many=
            ;;
    esac
}

# Sets `offers` to what the flag $2 of the command $1 takes; fails when it takes no value.
_llmctl_value() {
    case $1 in
        'llmctl')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl chat')
            case $2 in
                -p | --prompt | -s | --system | --url | --timeout | --temperature | --top-p | --top-k | --min-p | --repetition-penalty | --presence-penalty | --frequency-penalty | --seed | --max-new-tokens | --stop | --stop-token-id | --logprobs | --num-gpus | --gpus | --max-gpu-memory | --quant-config | --context | --revision | --delta) offers='' ;;
                -f | --file | --messages | --template | --adapter-file | --api-key-file) offers='@files' ;;
                --style) offers='rich simple programmatic' ;;
                --session) offers='@sessions' ;;
                --device) offers='auto cuda xpu npu mps cpu' ;;
                --dtype) offers='auto float32 bfloat16 float16' ;;
                --quantization) offers='int8 int4 nf4 fp4 none' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models list')
            case $2 in
                --family | --search) offers='' ;;
                --kind) offers='decoder encoder-decoder embedding reranker vision-language api' ;;
                --adapter-file) offers='@files' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models match')
            case $2 in
                --render | --template | --adapter-file) offers='@files' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models show')
            case $2 in
                --memory | --context | --num-gpus | --gpus | --max-gpu-memory | --quant-config | --revision) offers='' ;;
                --device) offers='auto cuda xpu npu mps cpu' ;;
                --dtype) offers='auto float32 bfloat16 float16' ;;
                --quantization | --quant) offers='int8 int4 nf4 fp4 none' ;;
                --adapter-file) offers='@files' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models pull')
            case $2 in
                --revision) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models convert')
            case $2 in
                --out) offers='@folders' ;;
                --dtype) offers='float32 bfloat16 float16' ;;
                --max-shard-size | --revision) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models push')
            case $2 in
                --revision | --message) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl models rm')
            case $2 in
                --revision) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl compress')
            case $2 in
                --method) offers='int8 int4 fp8 nf4 gptq awq' ;;
                --out) offers='@folders' ;;
                --group-size | --skip | --max-shard-size | --revision) offers='' ;;
                --calibration | --eval) offers='@files' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl delta')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl delta make')
            case $2 in
                --base | --target) offers='@models @folders' ;;
                --out) offers='@folders' ;;
                --format) offers='exact add' ;;
                --exclude | --hub-repo-id | --max-shard-size | --base-revision | --revision) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl delta apply')
            case $2 in
                --base) offers='@models @folders' ;;
                --delta | --max-shard-size | --base-revision | --revision) offers='' ;;
                --out) offers='@folders' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl delta show')
            case $2 in
                --revision) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl delta verify')
            case $2 in
                --base | --target) offers='@models @folders' ;;
                --base-revision | --revision) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl lora')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl lora merge')
            case $2 in
                --adapter | --max-shard-size | --revision) offers='' ;;
                --out) offers='@folders' ;;
                --base) offers='@models @folders' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl lora extract')
            case $2 in
                --base | --target) offers='@models @folders' ;;
                --out) offers='@folders' ;;
                --rank | --revision) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl logs')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl logs list')
            case $2 in
                -n | --limit) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl logs show')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl logs search')
            case $2 in
                -n | --limit) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl logs export')
            case $2 in
                --format) offers='md json' ;;
                -o | --output) offers='@files' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl logs delete')
            case $2 in
                --before) offers='' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl config')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl config show')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl bench')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl bench layers')
            case $2 in
                --shape) offers='demo qwen2-0.5b qwen3-0.6b qwen2.5-1.5b llama-1b gemma-2b mistral-7b llama-8b qwen2.5-7b llama-70b' ;;
                --rows | --method | --seconds) offers='' ;;
                --device) offers='auto cuda xpu npu mps cpu' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl bench engine')
            case $2 in
                --shape) offers='demo qwen2-0.5b qwen3-0.6b qwen2.5-1.5b llama-1b gemma-2b mistral-7b llama-8b qwen2.5-7b llama-70b' ;;
                --tokenizer) offers='@folders' ;;
                --dtype | --seconds) offers='' ;;
                --batch | --prefill | --mix) offers='none' ;;
                --long) offers='waiting context generation all none' ;;
                --against) offers='transformers' ;;
                --device) offers='auto cuda xpu npu mps cpu' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl bench serve')
            case $2 in
                --url | --model | --timeout | --against | --against-model | --concurrency | --rate | --requests | --mix | --max-tokens | --seed) offers='' ;;
                --api-key-file | --against-api-key-file | --prompts) offers='@files' ;;
                --endpoint) offers='completions chat' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve up')
            case $2 in
                --workers | --host | --port | --controller-port | --allowed-origin | --timeout | --drain | --delta | --max-running | --max-waiting | --max-step-tokens | --kv-memory | --seed | --num-gpus | --gpus | --max-gpu-memory | --quant-config | --context | --revision) offers='' ;;
                --api-key-file | --template | --adapter-file) offers='@files' ;;
                --dispatch-method) offers='least-wait lottery prefix' ;;
                --task) offers='auto generate embed classify' ;;
                --device) offers='auto cuda xpu npu mps cpu' ;;
                --dtype) offers='auto float32 bfloat16 float16' ;;
                --quantization) offers='int8 int4 nf4 fp4 none' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve ps')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve stop')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve worker')
            case $2 in
                --model) offers='@models @folders' ;;
                --template | --adapter-file | --api-key-file | --token-file) offers='@files' ;;
                --task) offers='auto generate embed classify' ;;
                --delta | --host | --port | --drain | --controller | --worker-address | --max-running | --max-waiting | --max-step-tokens | --kv-memory | --seed | --num-gpus | --gpus | --max-gpu-memory | --quant-config | --context | --revision) offers='' ;;
                --device) offers='auto cuda xpu npu mps cpu' ;;
                --dtype) offers='auto float32 bfloat16 float16' ;;
                --quantization) offers='int8 int4 nf4 fp4 none' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve controller')
            case $2 in
                --host | --port | --interval) offers='' ;;
                --token-file) offers='@files' ;;
                --dispatch-method) offers='least-wait lottery prefix' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve api')
            case $2 in
                --controller | --host | --port | --allowed-origin | --timeout | --drain) offers='' ;;
                --api-key-file | --token-file) offers='@files' ;;
                --dispatch-method) offers='least-wait lottery prefix' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl serve status')
            case $2 in
                --controller) offers='' ;;
                --token-file) offers='@files' ;;
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl doctor')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
        'llmctl completions')
            case $2 in
                --color) offers='auto always never' ;;
                *) return 1 ;;
            esac
            ;;
    esac
}

_llmctl() {
    local IFS=$' \t\n'
    local path=llmctl commands flags many offers='' waiting='' closed='' count=0
    local raw=${2-} typed plain quote offer i last
    local -a words places
    COMPREPLY=()
    _llmctl_split
    last=$((${#words[@]} - 1))
    _llmctl_command llmctl
    for ((i = 1; i < last; i++)); do
        _llmctl_step "${words[i]}" || return 0
    done
    typed=${words[last]}
    # Readline replaces only what stands behind a : or = that it takes for the end of a word.
    [[ $typed == *"$raw" ]] || raw=$typed
    _llmctl_unquote "$typed" || return 0
    _llmctl_choose || return 0
    for offer in $offers; do
        case $offer in
            @models | @sessions) _llmctl_names "${offer#@}" ;;
            @files | @folders) _llmctl_paths "$offer" ;;
            *) _llmctl_offer "$offer" ' ' ;;
        esac
    done
}

# Puts the words up to the cursor together again; bash cuts them at each of COMP_WORDBREAKS.
_llmctl_split() {
    local line=${COMP_LINE:0:COMP_POINT} blanks piece i n=0
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blanks=${line%%[!$' \t\n']*}
        line=${line#"$blanks"}
        piece=${COMP_WORDS[i]}
        if ((${#piece} > ${#line})); then piece=$line; fi
        if [[ $i == 0 || -n $blanks ]]; then
            words[n]=$piece n=$((n + 1))
        else
            words[n - 1]+=$piece
        fi
        line=${line:${#piece}}
    done
}

# Takes the word $1 before the cursor into account; fails when it is no command.
_llmctl_step() {
    if [[ -n $waiting ]]; then
        waiting=''
        return 0
    fi
    case $closed$1 in
        [\<\>]* | [0-9\&][\<\>]*)
            case $1 in *[\<\>]) offers=@files waiting=1 ;; esac
            return 0
            ;;
        --)
            closed=1
            return 0
            ;;
        --*=*) return 0 ;;
        --*)
            if _llmctl_value "$path" "$1"; then waiting=1; fi
            return 0
            ;;
        -?*)
            _llmctl_letters "$1"
            return 0
            ;;
    esac
    if [[ -z $commands ]]; then
        count=$((count + 1))
        return 0
    fi
    [[ " $commands " == *" $1 "* ]] || return 1
    path="$path $1" closed=''
    _llmctl_command "$path"
}

# Short flags in one word: a value belongs to the first that takes one.
_llmctl_letters() {
    local i
    for ((i = 1; i < ${#1}; i++)); do
        if _llmctl_value "$path" "-${1:i:1}"; then
            if ((i == ${#1} - 1)); then waiting=1; fi
            return
        fi
    done
}

# Sets `plain` to what the typed word $1 means and `quote` to the quote that is open at its end; fails when the
# shell is yet to find out what it means.
_llmctl_unquote() {
    local rest=$1 char
    plain='' quote=''
    while [[ -n $rest ]]; do
        char=${rest:0:1} rest=${rest:1}
        case $quote$char in
            \\ | \"\\)
                [[ -n $rest ]] || return 1
                plain+=${rest:0:1} rest=${rest:1}
                ;;
            \' | \") quote=$char ;;
            \'\' | \"\") quote='' ;;
            \$ | \` | \"\$ | \"\` | [*?[]) return 1 ;;
            *) plain+=$char ;;
        esac
    done
}

# Sets `offers` for the word at the cursor and `plain` to the part of it that they complete.
_llmctl_choose() {
    if [[ -n $waiting ]]; then return 0; fi
    case $closed$typed in
        [\<\>]* | [0-9\&][\<\>]*)
            offers=@files plain=${plain##*[<>]}
            return 0
            ;;
    esac
    case $closed$plain in
        --*=*)
            _llmctl_value "$path" "${plain%%=*}" || return 1
            plain=${plain#*=}
            ;;
        -*) offers=$flags ;;
        *)
            if ((count >= ${#places[@]})) && [[ -n $many ]]; then count=$((${#places[@]} - 1)); fi
            offers=$commands${places[count]-}
            # Where nothing else can follow, an empty word shows the flags.
            if ((count >= ${#places[@]})) && [[ -z $commands$closed$plain ]]; then offers=$flags; fi
            ;;
    esac
}

# Offers $1 followed by $2, if it goes on from what is typed. That stays as it is, and only the rest is quoted.
_llmctl_offer() {
    [[ $1 == "$plain"* ]] || return 0
    local rest=${1:${#plain}} end=$2
    if [[ -n $quote ]]; then
        case $quote$rest in \'*\'* | \"*[\"\`\$\\!]*) return 0 ;; esac
        end=''
    elif [[ -n $rest ]]; then
        printf -v rest %q "$rest"
    fi
    COMPREPLY[${#COMPREPLY[@]}]=$raw$rest$end
}

# Offers the lines of llmctl's file of $1: models or sessions.
_llmctl_names() {
    local folder=${LLMCTL_CACHE_HOME-} name
    if [[ -z $folder ]]; then
        case ${XDG_CACHE_HOME-} in
            /*) folder=$XDG_CACHE_HOME/llmctl ;;
            *) folder=$HOME/.cache/llmctl ;;
        esac
    fi
    case $folder in '~' | '~/'*) folder=$HOME${folder:1} ;; esac
    # A ~ that is typed without quotes means a home folder.
    [[ $typed != '~'* && -f $folder/$1.txt && -r $folder/$1.txt ]] || return 0
    while IFS= read -r name || [[ -n $name ]]; do
        case $name in '' | -* | *[[:cntrl:]]*) continue ;; esac
        _llmctl_offer "$name" ' '
    done <"$folder/$1.txt"
}

# Offers folders and, with @files, files.
_llmctl_paths() {
    local start=$plain name end
    case $quote$plain in '~/'*) start=$HOME${plain:1} ;; esac
    while IFS= read -r name; do
        end=' '
        case $name in */) end='' ;; esac
        _llmctl_offer "$plain${name:${#start}}" "$end"
    done < <(_llmctl_list "$start" "$1")
}

# Prints the paths that begin with $1, folders with a slash; in a shell of its own, whose options it may change.
_llmctl_list() (
    set +f
    shopt -s nullglob
    shopt -u failglob dotglob nocaseglob
    GLOBIGNORE=''
    for name in "$1"*; do
        if [[ $name == *[[:cntrl:]]* ]]; then
            continue
        elif [[ -d $name ]]; then
            printf '%s/\n' "$name"
        elif [[ $2 == @files ]]; then
            printf '%s\n' "$name"
        fi
    done
)

complete -o nospace -F _llmctl llmctl
