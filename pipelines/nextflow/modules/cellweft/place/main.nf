process CELLWEFT_PLACE {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"

    input:
    tuple val(meta), path(sc, stageAs: 'reference/*'), path(st, stageAs: 'spatial/*')
    path genes

    output:
    tuple val(meta), path('*.placed.h5ad'), emit: placed
    tuple val(meta), path('*.spots.h5ad'), emit: spots
    path 'versions.yml', emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}"
    def memory = task.memory ? "--memory ${task.memory.toMega()}MB" : ''
    def asked = genes ? "--genes ${genes}" : ''
    """
    export OMP_NUM_THREADS=${task.cpus}
    cellweft place ${sc} ${st} --output ${prefix}.placed.h5ad --spots ${prefix}.spots.h5ad ${memory} ${asked} ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cellweft: \$(cellweft --version | sed 's/^cellweft //')
    END_VERSIONS
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.placed.h5ad ${prefix}.spots.h5ad

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cellweft: \$(cellweft --version | sed 's/^cellweft //')
    END_VERSIONS
    """
}
