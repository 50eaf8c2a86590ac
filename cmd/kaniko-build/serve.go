package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
)

func newServe(t terminal) *cobra.Command {
	addr := "127.0.0.1:5050"
	c := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Serve the images of the store as a registry on this machine, read only",
		Long: `Serve the images of the store as a registry on this machine, read only, until it is
interrupted. An image is found by its name with or without the host of its
registry, and by the name of its target: docker pull 127.0.0.1:5050/api.

Only requests to a loopback address are answered. With KANIKO_BUILD_SERVE_TOKEN
set they need that as their password.`,
		Example: "  kaniko-build serve\n  kaniko-build serve --listen 127.0.0.1:7000",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withStore(c.Context(), runFlags{}, func(ctx context.Context, x *executor.Executor) error {
				return serve(ctx, t, addr, x.Distribution(os.Getenv("KANIKO_BUILD_SERVE_TOKEN")))
			})
		},
	}
	c.Flags().StringVar(&addr, "listen", addr, "a loopback address; port 0 is any")
	return c
}

// serve answers on addr until ctx ends.
func serve(ctx context.Context, t terminal, addr string, h http.Handler) error {
	host, port, err := net.SplitHostPort(addr)
	if _, bad := strconv.ParseUint(port, 10, 16); err == nil && bad != nil {
		return usageError{fmt.Errorf("--listen %q: %q is no port\n  hint: write 127.0.0.1:PORT, with a port from 0 to 65535", addr, port)}
	}
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usageError{fmt.Errorf("--listen %q is no loopback address\n  hint: write 127.0.0.1:PORT", addr)}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", addr, err)
	}
	fmt.Fprintf(t.err, "serving the store at %s\n", l.Addr())
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(late) != nil {
			srv.Close()
		}
	})
	defer ended()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
