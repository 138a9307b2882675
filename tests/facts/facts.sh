#!/bin/sh
# facts.sh KERNELS LAUNCHES OBJECTS.. - holds what the compiler said of each kernel (keep.sh) against kernels.txt, and its
# shared memory with what a launch asks for (launches.c) against what each GPU has. CUOBJDUMP=path: machine code too.
set -eu
export LC_ALL=C
kernels=$1 launches=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for object in "$@"; do
    facts=$object.facts
    [ -s "$facts/ptxas.txt" ] || { echo "$facts: the compiler's facts were not kept"; exit 1; }
    # A line a kernel and architecture: name arch registers stack spills shared
    awk '
        /Compiling entry function/ { split($0, part, "\047"); name = part[2]; arch = part[4]; sub("sm_", "", arch) }
        /bytes stack frame/ { stack = $1; spills = $5 + $9 }
        /Used [0-9]+ registers/ {
            registers = shared = 0
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^registers/) registers = $(i - 1)
                if ($i ~ /^smem/) shared = $(i - 2)
            }
            print "ptxas", name, arch, registers, stack, spills, shared
        }' "$facts/ptxas.txt"
    for ptx in "$facts"/*.ptx; do
        # A line a kernel: name arch most-threads blocks dynamic mma wgmma cp.async tma f64
        awk '
            /^\.target/ { arch = $2; gsub(/sm_|,/, "", arch) }
            /^\.extern \.shared/ { name = $NF; gsub(/\[\];?|;/, "", name); dynamic_name[name] = 1 }
            /^(\.visible |\.weak )?\.entry / {
                kernel = $0; sub(/.*\.entry /, "", kernel); sub(/\(.*/, "", kernel)
                threads = 1024; blocks = 1; dynamic = mma = wgmma = copies = tma = f64 = 0
            }
            kernel && /^\.maxntid/ { threads = $2 + 0 }
            kernel && /^\.minnctapersm/ { blocks = $2 + 0 }
            /begin inline asm/ { inside = 1 }           # whose braces end no kernel
            /end inline asm/ { inside = 0 }
            kernel && /^\t/ {
                if (/mma\.sync/) mma++
                if (/wgmma\.mma_async/) wgmma++
                if (/cp\.async\.c[ag]\./) copies++
                if (/cp\.async\.bulk/) tma++
                if (/\.f64/ && !/\.(reg|param)/) f64++
                for (name in dynamic_name) if (index($0, name)) dynamic = 1
            }
            kernel && /^}/ && !inside { print "ptx", kernel, arch, threads, blocks, dynamic, mma, wgmma, copies, tma, f64; kernel = "" }' "$ptx"
    done
    if [ -n "${CUOBJDUMP-}" ]; then
        # A line a kernel: name arch HMMA or IMMA, HGMMA or IGMMA, LDGSTS, DP, HMMA.884
        "$CUOBJDUMP" -sass "$object" | awk '
            function out() { if (kernel) print "sass", kernel, arch, hmma, hgmma, ldgsts, dp, volta; kernel = "" }
            /^arch = sm_/ { out(); arch = $3; sub("sm_", "", arch) }
            /Function : / { out(); kernel = $NF; hmma = hgmma = ldgsts = dp = volta = 0 }
            / [HI]MMA\./ { hmma++ }
            / HMMA\.884/ { volta++ }
            / [HI]GMMA\./ { hgmma++ }
            / LDGSTS/ { ldgsts++ }
            / D(ADD|MUL|FMA|SETP)/ { dp++ }
            END { out() }'
    fi
done > "$work/facts"
# Mangled names beside plain ones: few_kernel<__half, float, 3, 8, false> -> few_kernel
awk '{ print $2 }' "$work/facts" "$launches" | sort -u > "$work/mangled"
c++filt < "$work/mangled" | sed 's/^void //; s/[<(].*//; s/.*:://' > "$work/plain"
paste -d' ' "$work/mangled" "$work/plain" > "$work/names"

awk -v sass="${CUOBJDUMP-}" '
    function wrong(what) { print what; bad = 1 }
    function has(base, what) { return (" " needs[base] " ") ~ (" " what " ") }
    FILENAME == ARGV[1] { plain[$1] = $2; next }
    FILENAME == ARGV[2] {                                       # kernels.txt
        if (/^#/ || NF == 0) next
        name = $1
        optional[name] = sub(/\?$/, "", name)
        for (i = 2; i <= NF; i++)
            if ($i == "stack") budget[name] = $++i
            else needs[name] = needs[name] " " $i
        listed[name] = $1
        next
    }
    FILENAME == ARGV[3] {                                       # launches: launch name threads dynamic raised gpu
        base = plain[$2]
        launched[base] = 1
        if ($4 > top[base]) top[base] = $4
        if ($4 > most[base, $6]) most[base, $6] = $4
        if ($4 > asked[$2, $6]) asked[$2, $6] = $4
        known[$2, $6] = 1
        if ($3 > threads_of[$2]) threads_of[$2] = $3
        if ($4 > 48 * 1024 && $5 < $4) wrong(base ": launched with " $4 " bytes of shared memory, allowed were " $5 " (cudaFuncSetAttribute)")
        next
    }
    $1 == "ptxas" { registers[$2, $3] = $4; stack[$2, $3] = $5 > $6 ? $5 : $6; shared[$2, $3] = $7; seen[$2, $3] = 1; n++ }
    $1 == "ptx" { bound[$2, $3] = $4; blocks[$2, $3] = $5; dynamic[$2] = $6; ptx[$2, $3] = $7 " " $8 " " $9 " " $10 " " $11 }
    $1 == "sass" { code[$2, $3] = $4 " " $5 " " $6 " " $7 " " $8; machine++ }
    END {
        # What a block may have. 7.5 runs what was made for 7.0, 8.6 what was made for 8.0, and 8.9 has as much as 8.6.
        limit[70] = 96 * 1024
        limit[75] = 64 * 1024
        limit[80] = 163 * 1024
        limit[86] = 99 * 1024
        limit[90] = 227 * 1024
        gpus["70"] = "70 75"
        gpus["75"] = "75"
        gpus["80"] = "80 86"
        gpus["86"] = gpus["89"] = "86"
        gpus["90"] = gpus["90a"] = "90"
        for (key in seen) {
            split(key, part, SUBSEP)
            kernel = part[1]; arch = part[2]; base = plain[kernel]; here = base " (sm_" arch ")"
            exists[base] = 1
            if (stack[key] > worst[base, arch]) worst[base, arch] = stack[key]
            if (stack[key] > budget[base] + 0) wrong(here ": " stack[key] " bytes of stack or spills, the budget is " budget[base] + 0 ": " kernel)
            if (dynamic[kernel] && !launched[base]) wrong(here ": launches.c does not launch it: how much shared memory does it ask for?")
            if (!(arch in gpus)) { wrong(here ": facts.sh does not know this architecture"); continue }
            for (i = split(gpus[arch], run, " "); i > 0; i--) {
                need = shared[key] + (!dynamic[kernel] ? 0 : (kernel, run[i]) in known ? asked[kernel, run[i]] : most[base, run[i]])
                if (need > limit[run[i]]) wrong(here ": a block takes " need " bytes of shared memory, a GPU of " run[i] / 10 " has " limit[run[i]])
            }
            threads = kernel in threads_of ? threads_of[kernel] : bound[key] < 1024 ? bound[key] : 256
            if (threads > bound[key]) wrong(here ": launched with " threads " threads, compiled for " bound[key])
            if (int((registers[key] + 7) / 8) * 8 * threads * blocks[key] > 65536)
                wrong(here ": " registers[key] " registers x " threads " threads x " blocks[key] " blocks: more than a multiprocessor has")
            if (!(key in ptx)) { if (!sass) wrong(here ": no PTX was kept"); continue }
            split(ptx[key], is, " ")
            if (has(base, "mma") && !is[1]) wrong(here ": no mma.sync: " kernel)
            if (has(base, "m8n8k4") && !is[1]) wrong(here ": no mma.sync: " kernel)
            if (has(base, "wgmma") && !is[2]) wrong(here ": no wgmma: " kernel)
            if (has(base, "cp.async") && !is[3]) wrong(here ": no cp.async: " kernel)
            if (has(base, "tma") && !is[4]) wrong(here ": no cp.async.bulk: " kernel)
            if (is[5] && !has(base, "f64")) wrong(here ": computes in double precision: " kernel)
            if (!sass) continue
            if (!(key in code)) { wrong(here ": no machine code was found: " kernel); continue }
            split(code[key], is, " ")
            if (has(base, "mma") && !is[1]) wrong(here ": no HMMA or IMMA: " kernel)
            if (arch == 70 && has(base, "m8n8k4") && !is[5]) wrong(here ": no HMMA.884: " kernel)
            if (arch == 70) volta_code++
            if (has(base, "wgmma") && !is[2]) wrong(here ": no HGMMA or IGMMA: " kernel)
            if (has(base, "cp.async") && !is[3]) wrong(here ": no LDGSTS: " kernel)
            if (is[4] && !has(base, "f64")) wrong(here ": double precision in machine code: " kernel)
        }
        for (base in listed) if (!optional[listed[base]] && !exists[base]) wrong("kernels.txt: there is no kernel " base)
        for (key in worst) {
            split(key, part, SUBSEP)
            if (worst[key]) printf "%s (sm_%s): up to %d bytes of stack or spills of a budget of %d\n", part[1], part[2], worst[key], budget[part[1]]
        }
        for (base in top) if (top[base]) printf "%s: up to %d bytes of dynamic shared memory\n", base, top[base]
        printf "%d kernels (an instance and architecture each)%s\n", n, sass ? ", machine code of " machine : "; machine code not read: no cuobjdump"
        print volta_code ? "machine code for 7.0: of " volta_code " kernels, with HMMA.884 where kernels.txt says m8n8k4" : "no machine code for 7.0 was read"
        if (n == 0) bad = 1
        exit bad
    }' "$work/names" "$kernels" "$launches" "$work/facts"
