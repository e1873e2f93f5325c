#!/bin/sh
# RUSTC_WRAPPER for fuzzing. It compiles the generated EC2 client (a million lines) without instrumentation and without
# optimisation. All other crates, including the client's XML parser and runtime, are compiled as cargo-fuzz requests.
rustc=$1
shift
case " $* " in
*" --crate-name aws_sdk_ec2 "*)
    for argument; do
        shift
        case $argument in
        -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
        *) set -- "$@" "$argument" ;;
        esac
    done
    set -- "$@" -Copt-level=0 -Cdebuginfo=0 -Ccodegen-units=16 -Clink-dead-code=no
    ;;
esac
exec "$rustc" "$@"
