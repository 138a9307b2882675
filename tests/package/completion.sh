#!/usr/bin/env bash
# completion.sh RVENGINE RVBENCH SCRATCH - bash's completion as bash runs it, and zsh's where zsh is.
#   Every line is split as readline does (COMP_WORDBREAKS: --name=value is three words), then the function is called.
set -u
rvengine=$1 rvbench=$2 scratch=$3 failed=0
rm -rf "$scratch" && mkdir -p "$scratch/receipts" && cd "$scratch" || exit 1
: > page.png
"$rvengine" help bash > rvengine.bash && "$rvbench" help bash > rvbench.bash || exit 1
. ./rvengine.bash
. ./rvbench.bash

# offers WORDS.. -- WANTED..: the last of WORDS is being typed; all of WANTED are among what is offered ("none": nothing is).
offers() {
    COMP_WORDS=() COMPREPLY=()
    while [ "$1" != -- ]; do COMP_WORDS+=("$1"); shift; done
    shift
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "_${COMP_WORDS[0]}"
    local got=" ${COMPREPLY[*]} " wanted
    for wanted in "$@"; do
        [ "$wanted" = none ] && { [ ${#COMPREPLY[@]} = 0 ] || { echo "${COMP_WORDS[*]}: offers ${COMPREPLY[*]}"; failed=1; }; continue; }
        [[ $got == *" $wanted "* ]] || { echo "${COMP_WORDS[*]}: \"$wanted\" is missing, offered:$got"; failed=1; }
    done
}

offers rvengine "" -- run doctor eval help --version
offers rvengine do -- doctor
offers rvengine help "" -- run exit-codes profiles zsh
offers rvengine run --back -- --backend
offers rvengine run --backend "" -- auto cpu cuda
offers rvengine run --backend = c -- cpu cuda
offers rvengine run --backend = -- auto
offers rvengine run -m rec -- receipts
offers rvengine run -m pag -- none
offers rvengine run -i pa -- page.png
offers rvengine run -p "" -- none
offers rvengine run --cache o -- off
offers rvengine run --gpu-profile v -- v100
offers rvengine extract --schema tax -- tax_invoice
offers rvengine schema "" -- list show check
offers rvengine eval l -- lint
offers rvengine inspect pa -- page.png
offers rvengine bogus --x -- none
offers rvbench "" -- run report ops
offers rvbench --gpu-pro -- --gpu-profile
offers rvbench --gpu-profile h1 -- h100
offers rvbench report "" -- page.png

# Every option that --help tells is offered.
for command in run inspect plan doctor tokenize synth quantise extract classify batch schema validate eval; do
    offers rvengine $command - -- $("$rvengine" help $command | sed -n 's/^  \(-., \|    \)\(--[a-z0-9-]*\).*/\2/p') --help
done

if ! command -v zsh > /dev/null; then
    echo "no zsh here: its completion was not tried"
    exit $failed
fi
"$rvengine" help zsh > _rvengine && "$rvbench" help zsh > _rvbench || exit 1
# A terminal of zsh's own (zpty): the line and a tab go in; what the line then is comes out.
cat > try.zsh <<'EOF'
zmodload zsh/zpty
zpty z "TERM=dumb zsh -f -i"
zpty -w z "PS1='> '; PS2=; unsetopt zle_bracketed_paste 2> /dev/null; stty -echo; fpath=($PWD \$fpath); autoload -U compinit; compinit -u -D; zle_told() { print -r -- \"\"; print -r -- \"[[\$BUFFER]]\"; zle kill-buffer }; zle -N zle_told; bindkey '^X' zle_told; print rea''dy"
zpty -r -m z line '*ready*'
for typed in "$@"; do
    zpty -w -n z "$typed"$'\t'$'\x18'
    zpty -r -m z line '*\]\]*' || { print "zsh: no answer to $typed"; exit 1 }
    print -r -- "${${line##*\[\[}%%\]\]*}"
done
zpty -d z
EOF
got=$(timeout 60 zsh -f try.zsh 'rvengine doc' 'rvengine run --backe' 'rvengine run --backend cu' 'rvengine run -i pa' 'rvengine extract --schema tax' 'rvengine eval li' 'rvbench --gpu-prof' 'rvbench report pa' | sed 's/ *$//')
wanted='rvengine doctor
rvengine run --backend
rvengine run --backend cuda
rvengine run -i page.png
rvengine extract --schema tax_invoice
rvengine eval lint
rvbench --gpu-profile
rvbench report page.png'
# An option that takes a value may be completed with its "=".
[ "$(echo "$got" | sed 's/=$//')" = "$wanted" ] || { printf 'zsh completes to:\n%s\nwanted:\n%s\n' "$got" "$wanted"; failed=1; }
exit $failed
