// Third-party tools that the tests judge fairlead's packaging with, as one program that looks at its own name: helm renders
// and installs the chart, kind checks kind-config.yaml, kstatus says what Helm, Flux and kapp think of an object's status.
// One program, because all three share most of their packages with each other and with the control plane.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kindapp "sigs.k8s.io/kind/cmd/kind/app"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "helm":
		helm()
	case "kind":
		kindapp.Main()
	case "kstatus":
		if err := kstatus(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "call me helm, kind or kstatus, not %s\n", name)
		os.Exit(2)
	}
}

// helm is what helm.sh/helm/v4/cmd/helm does.
func helm() {
	kube.ManagedFieldsManager = "helm"
	command, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err != nil {
		slog.Warn("command failed", slog.Any("error", err))
		os.Exit(1)
	}
	if err := command.Execute(); err != nil {
		if failed, ok := errors.AsType[helmcmd.CommandError](err); ok {
			os.Exit(failed.ExitCode)
		}
		os.Exit(1)
	}
}

// kstatus reads a JSON array of objects and writes an array of {"status", "message"}.
func kstatus(in io.Reader, out io.Writer) error {
	var raw []json.RawMessage
	if err := json.NewDecoder(in).Decode(&raw); err != nil {
		return err
	}
	type verdict struct {
		Status  string `json:"status"`
		Message string `json:"message"`
	}
	verdicts := []verdict{}
	for _, text := range raw {
		// UnmarshalJSON keeps integers; a plain map would make them floats, which kstatus refuses.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		result, err := status.Compute(object)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, verdict{result.Status.String(), result.Message})
	}
	return json.NewEncoder(out).Encode(verdicts)
}
