# The NixOS module in a virtual machine: nix build .#nixosTest (needs KVM).
{ self, pkgs }:
let
  examples = "${self.packages.${pkgs.stdenv.hostPlatform.system}.examples}/share/tidegate/examples";
in
pkgs.testers.runNixOSTest {
  name = "tidegate";
  nodes.machine = {
    imports = [ self.nixosModules.default ];
    services.tidegate = {
      enable = true;
      component = "${examples}/lobby.wasm";
      assets = "${examples}/lobby/assets";
      settings.limits.message_bytes_max = 65536;
    };
  };
  testScript = ''
    machine.wait_for_unit("tidegate.service")
    machine.wait_for_open_port(8080)
    machine.succeed("curl --fail http://127.0.0.1:8080/")
    machine.succeed("systemctl restart tidegate.service")
    machine.wait_for_open_port(8080)
    machine.succeed("curl --fail http://127.0.0.1:8080/")
  '';
}
