// Package chart tests the Helm chart of the product, charts/hallmark, without a cluster: it is rendered by Helm's own
// library with many sets of values, and what comes out is given to the code that will read it.
//
//   - Kubernetes' types decode every object strictly, those of the Prometheus operator its own.
//   - The binary is started with the arguments and files of the rendered pods, and reads the rendered configuration.
//   - The API server's own evaluator judges pods by the rendered policies and match conditions.
//   - Pod Security judges the rendered pods, and Prometheus' parser the alerts and the dashboard.
//   - helm lint --strict and helm unittest (charts/hallmark/tests) are run.
//
// It is a module of its own, so that nothing of this reaches what users run. test/cluster/e2e applies the chart to a real
// API server. Here too are the programs of the same versions:
//
//	go -C test/chart tool helm template hallmark ../../charts/hallmark
//	go -C test/chart tool helm-unittest ../../charts/hallmark
//	go -C test/chart run ./cmd/values          # writes charts/hallmark/README.md
package chart
