# Exactly what cargo reads.
{ lib }:
lib.fileset.toSource {
  root = ../.;
  fileset = lib.fileset.unions [
    ../Cargo.toml
    ../Cargo.lock
    ../docs
    ../unprivileged-gateway
  ];
}
