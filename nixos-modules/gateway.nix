# The unprivileged gateway: receives, keeps, shows and forwards.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.bulkhead.gateway;
  format = pkgs.formats.yaml { };
  probe = config.services.bulkhead.probe.enable or false;
in {
  options.services.bulkhead.gateway = {
    enable = lib.mkEnableOption "the unprivileged Bulkhead gateway";
    package = lib.mkPackageOption pkgs "bulkhead-gateway" { };
    settings = lib.mkOption {
      type = format.type;
      default = { };
      example = { send.loki.logs.url = "http://127.0.0.1:3100/loki/api/v1/push"; };
      description = "The configuration (docs/configuration.md). Empty: the built-in local view of this machine.";
    };
    configFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = if cfg.settings == { } then null else format.generate "gateway.yaml" cfg.settings;
      defaultText = lib.literalMD "generated from `settings`, if there are any";
      description = "The configuration file; none: built in.";
    };
  };

  config = lib.mkIf cfg.enable {
    users.groups.bulkhead = { };
    systemd.services.bulkhead-gateway = {
      description = "Bulkhead gateway";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ] ++ lib.optional probe "bulkhead-probe.socket";
      # journalctl, for the journal of this machine.
      path = [ config.systemd.package ];
      serviceConfig = import ./hardening.nix // {
        ExecStart = lib.escapeShellArgs ([ (lib.getExe cfg.package) "run" ]
          ++ lib.optionals (cfg.configFile != null) [ "-c" (toString cfg.configFile) ]);
        StateDirectory = "bulkhead";
        StateDirectoryMode = "0700";
        AmbientCapabilities = [ "" ];
        CapabilityBoundingSet = [ "" ];
        # The door, and the journal.
        SupplementaryGroups = [ "bulkhead" "systemd-journal" ];
        PrivateUsers = true;
        ProtectHome = true;
        # Not "pid": the host's metrics are read from /proc/stat, /proc/meminfo and their like.
        ProcSubset = "all";
        ProtectProc = "invisible";
        RestrictAddressFamilies = [ "AF_INET" "AF_INET6" "AF_UNIX" ];
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
        # A restart is over within 5 s.
        TimeoutStopSec = 10;
      };
    };
  };
}
