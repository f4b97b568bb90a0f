{
  description = "Bulkhead: a telemetry appliance";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  # Wiring only. What is built is in ./nix; modules, images and VM tests join as they are built.
  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      pkgsFor = system: import nixpkgs { inherit system; overlays = [ self.overlays.default ]; };
      eachSystem = f: lib.genAttrs systems (system: f (pkgsFor system));
    in {
      overlays.default = final: _: { bulkhead-gateway = final.callPackage ./nix/gateway.nix { }; };
      packages = eachSystem (pkgs: rec { gateway = pkgs.bulkhead-gateway; default = gateway; });
      apps = eachSystem (pkgs: { gateway = { type = "app"; program = lib.getExe pkgs.bulkhead-gateway; }; });
      checks = eachSystem (pkgs: { gateway = pkgs.bulkhead-gateway; });
      devShells = eachSystem (pkgs: { default = pkgs.mkShell { inputsFrom = [ pkgs.bulkhead-gateway ]; packages = [ pkgs.nodejs ]; }; });
    };
}
