// Package httpx runs a small service over HTTP, with a health check.
package httpx

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"
)

// Serve answers at PORT of the environment, or at the port given, on loopback.
// With -check it asks a running service how it is, and says so by exit code.
func Serve(port string, h http.Handler) {
	check := flag.Bool("check", false, "ask the running service for its health")
	flag.Parse()
	if p := os.Getenv("PORT"); p != "" {
		port = p
	}
	addr := "127.0.0.1:" + port
	if *check {
		resp, err := http.Get("http://" + addr + "/health")
		if err != nil || resp.StatusCode != http.StatusOK {
			os.Exit(1)
		}
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintln(os.Stderr, srv.ListenAndServe())
	os.Exit(1)
}
