process CELLWEFT_IMPUTE {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"

    input:
    tuple val(meta), path(sc, stageAs: 'reference/*'), path(st, stageAs: 'spatial/*')
    path genes
    path embedding
    path gene_sets, arity: '0..*', stageAs: 'gene_sets/*'
    path edges, arity: '0..*', stageAs: 'edges/*'

    output:
    tuple val(meta), path('*.zarr'), emit: imputed
    path 'versions.yml', emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}"
    def memory = task.memory ? "--memory ${task.memory.toMega()}MB" : ''
    def asked = genes ? "--genes ${genes}" : ''
    def network = [
        embedding ? "--embedding ${embedding}" : '',
        gene_sets.collect { one -> "--gene-sets ${one}" }.join(' '),
        edges.collect { one -> "--edges ${one}" }.join(' '),
    ].join(' ')
    // Each attempt has its own folder, so the finished parts of the previous attempt are copied from there. If there
    // are none, --resume starts from the beginning.
    def before = task.attempt > 1 ? task.previousTrace?.workdir : null
    def left = "'${before}/${prefix}.zarr.resume'"
    def fetch = before ? "if [ -d ${left} ]; then mv ${left} .; fi" : ''
    """
    export OMP_NUM_THREADS=${task.cpus}
    ${fetch}
    cellweft impute ${sc} ${st} --output ${prefix}.zarr ${memory} ${asked} ${network} --resume ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cellweft: \$(cellweft --version | sed 's/^cellweft //')
    END_VERSIONS
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}.zarr

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cellweft: \$(cellweft --version | sed 's/^cellweft //')
    END_VERSIONS
    """
}
