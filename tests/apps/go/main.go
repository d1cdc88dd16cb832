// The sample app in Go: standard library only. tests/apps/README.md says what it answers.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Longer than any request of a test takes.
const drain = 10 * time.Second

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	text, err := os.ReadFile("version")
	if err != nil {
		log.Fatal(err)
	}
	version, release := strings.TrimSpace(string(text)), env("TEMPS_RELEASE", "unknown")
	address := net.JoinHostPort(env("HOST", "127.0.0.1"), env("PORT", "8080"))
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Release", release)
		w.Header().Set("X-Version", version)
		facts := map[string]any{"release": release, "version": version, "pid": os.Getpid(), "path": r.URL.Path}
		// Who does not wait for the answer does not need it.
		_ = json.NewEncoder(w).Encode(facts)
	})}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	log.Printf("%s listens on %s", runtime.Version(), address)
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-stop.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		log.Fatal(err)
	}
}
