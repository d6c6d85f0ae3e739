// Command udprelay serves Tailscale's peer relay (tailscale.com/net/udprelay) by itself, for the bench: what a tailscaled
// with --relay-server-port runs, without the rest of it.
//
// It allocates an endpoint for every line of -pairs (two disco keys) and prints "VNI SERVER-DISCO-KEY" for each, in order.
// Clients bind as they always do; the bench does that. Serves until it is killed.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"strings"

	"tailscale.com/net/udprelay"
	"tailscale.com/types/key"
	"tailscale.com/types/views"
	"tailscale.com/util/usermetric"
)

func main() {
	port := flag.Uint("port", 41000, "UDP `port` to relay on")
	addresses := flag.String("addresses", "", "comma-separated `addresses` that clients reach it by")
	pairs := flag.String("pairs", "", "`file` of pairs of clients, two disco keys a line")
	flag.Parse()
	if err := serve(uint16(*port), *addresses, *pairs); err != nil {
		log.Fatal(err)
	}
	select {}
}

func serve(port uint16, addresses, pairs string) error {
	quiet := func(string, ...any) {}
	server, err := udprelay.NewServer(quiet, port, true, new(usermetric.Registry), nil)
	if err != nil {
		return fmt.Errorf("listening on %d: %w", port, err)
	}
	var static []netip.AddrPort
	for text := range strings.SplitSeq(addresses, ",") {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		static = append(static, netip.AddrPortFrom(address, port))
	}
	server.SetStaticAddrPorts(views.SliceOf(static))

	file, err := os.Open(pairs)
	if err != nil {
		return err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var clients [2]key.DiscoPublic
		for i, text := range strings.Fields(lines.Text()) {
			if err := clients[i%2].UnmarshalText([]byte(text)); err != nil {
				return fmt.Errorf("%q: %w", lines.Text(), err)
			}
		}
		endpoint, err := server.AllocateEndpoint(clients[0], clients[1])
		if err != nil {
			return fmt.Errorf("allocating: %w", err)
		}
		server, err := endpoint.ServerDisco.MarshalText()
		if err != nil {
			return err
		}
		fmt.Println(endpoint.VNI, string(server))
	}
	return nil
}
