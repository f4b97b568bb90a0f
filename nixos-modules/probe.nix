# The privileged probe: samples stacks, reads log files, hands both through the door.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.bulkhead.probe;
  # BPF and PERFMON go once the programs are attached; SYS_PTRACE stays, to open executables of other users (ADR 5).
  capabilities = [ "CAP_BPF" "CAP_PERFMON" "CAP_SYS_PTRACE" ];
  files = lib.concatLists (lib.mapAttrsToList (name: globs: map (glob: "--files=${name}=${glob}") globs) cfg.files);
in {
  options.services.bulkhead.probe = {
    enable = lib.mkEnableOption "the privileged Bulkhead probe";
    package = lib.mkPackageOption pkgs "bulkhead-probe" { };
    hz = lib.mkOption {
      type = lib.types.ints.between 1 1000;
      default = 97;
      description = "CPU samples a second and CPU.";
    };
    tables = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Unwind by .eh_frame tables (see the README for a patent); otherwise by frame pointers only.";
    };
    files = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.str);
      default = { };
      example = { syslog = [ "/var/log/syslog*" ]; };
      description = "Plain log files: a name, and the absolute patterns that belong to it.";
    };
    extraArgs = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Further arguments of `probe run`.";
    };
  };

  config = lib.mkIf cfg.enable {
    users.groups.bulkhead = { };
    # 3 and 4, the defaults of some kernels, refuse PERFMON.
    boot.kernel.sysctl."kernel.perf_event_paranoid" = lib.mkDefault 2;

    systemd.sockets.bulkhead-probe = {
      description = "Door between the Bulkhead probe and its gateway";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ "/run/bulkhead/probe.sock" ];
      socketConfig = { SocketMode = "0660"; SocketGroup = "bulkhead"; DirectoryMode = "0755"; RemoveOnStop = true; };
    };

    systemd.services.bulkhead-probe = {
      description = "Bulkhead probe";
      requires = [ "bulkhead-probe.socket" ];
      after = [ "bulkhead-probe.socket" ];
      wantedBy = [ "multi-user.target" ];
      serviceConfig = import ./hardening.nix // {
        Type = "notify";
        ExecStart = lib.escapeShellArgs ([ (lib.getExe' cfg.package "probe") "run" "--peer-group" "bulkhead" "--hz" (toString cfg.hz) ]
          ++ lib.optional (!cfg.tables) "--no-tables" ++ files ++ cfg.extraArgs);
        StateDirectory = "bulkhead-probe";
        StateDirectoryMode = "0700";
        AmbientCapabilities = capabilities;
        CapabilityBoundingSet = capabilities;
        # Log files of mode 0640 belong to these.
        SupplementaryGroups = [ "root" "adm" ];
        # No network of its own; the door is a path.
        PrivateNetwork = true;
        RestrictAddressFamilies = [ "AF_UNIX" ];
        # It looks at every process of the node.
        PrivateUsers = false;
        ProcSubset = "all";
        ProtectProc = "default";
        ProtectHome = "read-only";
        SystemCallFilter = [ "@system-service" "~@privileged @resources" "bpf" "perf_event_open" "capset" "prlimit64" "setrlimit" ];
        LimitMEMLOCK = "infinity";
        LimitNOFILE = 16384;
      };
    };
  };
}
