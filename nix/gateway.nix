{ lib, rustPlatform }:
rustPlatform.buildRustPackage {
  pname = "bulkhead-gateway";
  version = "0.1.0";
  src = import ./source.nix { inherit lib; };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [ "-p" "gateway" "-p" "loadgen" ];
  # Scenes with real processes need a network and other people's senders: `make test` runs them.
  cargoTestFlags = [ "-p" "gateway" "-p" "model" "-p" "wal" "--lib" ];
  meta = {
    description = "Telemetry gateway: durable before it answers";
    license = lib.licenses.asl20;
    mainProgram = "gateway";
    platforms = lib.platforms.linux;
  };
}
