#!/bin/sh
# RUSTC_WRAPPER for fuzzing: the generated EC2 client, a million lines, is compiled without instrumentation and without
# optimisation. Everything else, the XML parser and the runtime below the client included, is as cargo-fuzz wants it.
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
