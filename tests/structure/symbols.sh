#!/bin/sh
# symbols.sh HEADERS SHARED STATIC - what the built library shows and uses:
#   the shared library exports exactly the functions of the public headers (a list of paths in one argument);
#   the library keeps no global state, does not print, exit, abort by itself or read the environment.
set -u
headers=$1 shared=$2 static=$3 failed=0

wanted=$(cat $headers | grep -o 'RV_API.*' | grep -o 'rv_[a-z0-9_]*(' | tr -d '(' | sort -u)
got=$(nm -D --defined-only "$shared" | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
[ -n "$wanted" ] && [ -n "$got" ] || { echo "cannot read $headers or $shared"; exit 1; }
for name in $wanted; do
    echo "$got" | grep -qx "$name" || { echo "declared, but not exported: $name"; failed=1; }
done
for name in $got; do
    echo "$wanted" | grep -qx "$name" || { echo "exported, but not in a header: $name"; failed=1; }
done

used=$(nm -u "$static" | awk '/ U / { print $2 }' | sort -u |
    grep -Ex 'getenv|secure_getenv|exit|_exit|quick_exit|abort|printf|vprintf|puts|putchar|perror|stdout|stderr|__printf_chk|signal|sigaction|setlocale')
[ -z "$used" ] || { echo "the library must not use:" $used; failed=1; }

# Objects in .data and .bss can be written. Tables of constants with addresses are in .data.rel.ro. What nvcc adds to
# register kernels is not ours, nor is where a compiler notes how C++ unwinds; neither is its handle for the counter on the GPU (act.cuh), which nothing but a statistic reads.
globals=$(objdump -t "$static" | awk '$3 == "O" && ($4 ~ /^\.(data|bss)(\.|$)/ && $4 !~ /^\.data\.rel\.ro/) { print $NF }
                                       $2 == "O" && ($3 ~ /^\.(data|bss)(\.|$)/ && $3 !~ /^\.data\.rel\.ro/) { print $NF }' |
    grep -vE '^DW\.ref\.|^_ZL20__cudaFatCubinHandle$|^_ZL11f16_clamped$|^_Z(GVZ|Z)L?[0-9]+__device_stub_.*E(8__handle|5__tmp)$')
[ -z "$globals" ] || { echo "the library must not keep global state:" $globals; failed=1; }
exit $failed
